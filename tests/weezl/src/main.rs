// SPDX-License-Identifier: Apache-2.0
//! Streams of weezl, the LZW that Wasmer's cache once used, and what weezl itself makes of them.
//!
//!     weezl-streams compare SEED COUNT    COUNT inputs and their streams, and as many of each kind of
//!                                         other streams, as records
//!     weezl-streams golden TESTS          writes weezl/golden and fuzz/corpus/lzw below it
//!     weezl-streams encode|decode         standard input to standard output; 1: decode refuses it
//!
//! A record, little-endian: kind (1 byte: 'e' encoded, 'd' damaged, 'c' made of codes), 1 if weezl's
//! decoder accepts the stream, length of the stream (4), length of the output (4), both.

use std::io::{BufWriter, Cursor, Read, Write};
use std::process::ExitCode;

use weezl::{decode::Decoder, encode::Encoder, BitOrder};

/// As save_compressed() of that cache did, but with less than the 16 MiB that are filled each time.
fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(BitOrder::Msb, 8);
    let mut writer = encoder.into_stream(&mut out);
    writer.set_buffer_size(64 * 1024);
    writer.encode_all(Cursor::new(bytes)).status.unwrap();
    out
}

/// As its read_compressed() did. A panic is a refusal.
fn decode(stream: &[u8]) -> Option<Vec<u8>> {
    std::panic::catch_unwind(|| {
        let mut out = Vec::new();
        let mut decoder = Decoder::new(BitOrder::Msb, 8);
        let status = decoder.into_vec(&mut out).decode_all(stream).status;
        status.ok().map(|_| out)
    })
    .unwrap_or_else(|_| {
        eprintln!("weezl-streams: weezl's decoder panicked");
        None
    })
}

/// xorshift64*, so that a seed gives the same streams everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}

/// No two neighbours stand there a second time (up to 32,768 bytes), so that each byte is a code.
fn fresh(length: usize) -> Vec<u8> {
    let steps = (1..256).step_by(2).cycle();
    let bytes = steps.flat_map(|step| (0..256).map(move |i| (i * step) as u8));
    bytes.take(length).collect()
}

/// Of fresh ones: the stream ends about where codes get longer or the table is full, for the first
/// time or again.
const SWITCHES: [usize; 6] = [254, 255, 766, 1790, 3838, 2 * 3839];
const LARGEST: usize = 200 * 1024;

fn length(random: &mut Random) -> usize {
    match random.below(10) {
        0 => random.below(17),
        1 | 2 => SWITCHES[random.below(SWITCHES.len())] + random.below(9) - 4,
        3..=5 => random.below(1025),
        6 | 7 => random.below(16 * 1024),
        _ => random.below(LARGEST + 1),
    }
}

fn fill(out: &mut Vec<u8>, length: usize, mut more: impl FnMut(&mut Vec<u8>)) {
    while out.len() < length {
        more(out);
    }
    out.truncate(length);
}

const WORDS: [&str; 16] = [
    "module",
    "memory",
    "function",
    "the",
    "of",
    "and",
    "table",
    "(i32.const 0)",
    "local.get",
    "call",
    "__wasm_call_ctors",
    "malloc",
    "\n",
    ", ",
    "0x7f",
    "end",
];

fn input(random: &mut Random) -> Vec<u8> {
    let length = length(random);
    let shape = random.below(10);
    let parameter = 1 + random.below(300);
    let mut out = Vec::with_capacity(length + 512);
    match shape {
        // nothing repeats
        0 => fill(&mut out, length, |o| o.push(random.byte())),
        // runs
        1 => fill(&mut out, length, |o| {
            let (byte, n) = (random.byte(), 1 + random.below(parameter));
            o.extend(std::iter::repeat(byte).take(n));
        }),
        // text
        2 => fill(&mut out, length, |o| {
            o.extend(WORDS[random.below(WORDS.len())].bytes());
            o.push(b' ');
        }),
        // like wasm: opcodes and small numbers as LEB128
        3 => fill(&mut out, length, |o| match random.below(6) {
            0 => o.extend([0x20, random.below(20) as u8]),
            1 => o.extend([0x41, random.byte() | 0x80, random.below(4) as u8]),
            2 => o.extend([0x28, 0x02, (random.below(30) * 4) as u8]),
            3 => o.extend([0x10, random.byte() | 0x80, random.below(40) as u8]),
            4 => o.push(0x6A + random.below(8) as u8),
            _ => o.push(0x0B),
        }),
        // few different bytes
        4 => fill(&mut out, length, |o| {
            o.push((random.below(1 + parameter % 8)) as u8)
        }),
        // a single one: the longest strings, each the newest code
        5 => out.resize(length, parameter as u8),
        // a period
        6 => {
            let period: Vec<u8> = (0..parameter).map(|_| random.byte()).collect();
            fill(&mut out, length, |o| o.extend(&period));
        }
        // like an artifact: addresses, zeros, machine code
        7 => fill(&mut out, length, |o| match random.below(3) {
            0 => {
                for i in 0..random.below(parameter) {
                    o.extend((0x1000 + i * 16).to_le_bytes());
                }
            }
            1 => o.resize(o.len() + random.below(4 * parameter), 0),
            _ => {
                for _ in 0..random.below(parameter) {
                    o.extend([
                        0x48,
                        0x8B,
                        0x45 + random.below(4) as u8,
                        (random.below(16) * 8) as u8,
                    ]);
                }
            }
        }),
        8 => out = fresh(length),
        // copies from before
        _ => fill(&mut out, length, |o| {
            if o.len() < 8 || random.below(4) == 0 {
                o.push(random.byte());
            } else {
                let from = random.below(o.len());
                let to = (from + 1 + random.below(parameter)).min(o.len());
                o.extend_from_within(from..to);
            }
        }),
    }
    out
}

fn damage(stream: &mut Vec<u8>, random: &mut Random) {
    match random.below(6) {
        0 => stream.truncate(random.below(stream.len() + 1)),
        1 => {
            let at = random.below(stream.len());
            stream.remove(at);
        }
        2 => {
            let at = random.below(stream.len() + 1);
            stream.insert(at, random.byte());
        }
        3 => {
            // not the end: bytes behind it
            for _ in 0..random.below(20) {
                stream.push(random.byte());
            }
        }
        _ => {
            for _ in 0..1 + random.below(4) {
                let at = random.below(stream.len());
                stream[at] ^= 1 << random.below(8);
            }
        }
    }
}

/// Any codes that may be where they are, and now and then one that may not.
struct Codes {
    bytes: Vec<u8>,
    buffer: u32,
    held: u32,
    bits: u32,
    next: usize,
}

impl Codes {
    fn new() -> Codes {
        Codes {
            bytes: Vec::new(),
            buffer: 0,
            held: 0,
            bits: 9,
            next: 257,
        }
    }

    fn put(&mut self, code: usize) {
        self.buffer = self.buffer << self.bits | code as u32;
        self.held += self.bits;
        while self.held >= 8 {
            self.held -= 8;
            self.bytes.push((self.buffer >> self.held) as u8);
        }
        if code == 256 {
            (self.bits, self.next) = (9, 257);
        } else if code != 257 && self.next < 4096 {
            self.next += 1;
            if self.next == 1 << self.bits && self.bits < 12 {
                self.bits += 1;
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.held > 0 {
            self.bytes.push((self.buffer << (8 - self.held)) as u8);
        }
        self.bytes
    }
}

fn codes(random: &mut Random) -> Vec<u8> {
    let mut codes = Codes::new();
    let length = if random.below(4) == 0 {
        random.below(6000)
    } else {
        random.below(300)
    };
    let clears = [0, 0, 3, 1000][random.below(4)];
    let literals = [2, 10, 100][random.below(3)];
    let newest = [0, 3, 50][random.below(3)];
    let wrong = [0, 0, 0, 200][random.below(4)];
    let one_in = |random: &mut Random, n: usize| n > 0 && random.below(n) == 0;
    for _ in 0..length {
        let code = if one_in(random, clears) {
            256
        } else if one_in(random, wrong) {
            random.below(1 << codes.bits)
        } else if codes.next < 258 || one_in(random, literals) {
            random.below(256)
        } else if one_in(random, newest) {
            codes.next.min(4095)
        } else {
            258 + random.below(codes.next.min(4095) - 257)
        };
        codes.put(code);
    }
    if random.below(10) > 0 {
        codes.put(257);
    }
    codes.finish()
}

fn record(
    out: &mut impl Write,
    kind: u8,
    stream: &[u8],
    output: Option<&[u8]>,
) -> std::io::Result<()> {
    let bytes = output.unwrap_or(&[]);
    out.write_all(&[kind, output.is_some() as u8])?;
    out.write_all(&(stream.len() as u32).to_le_bytes())?;
    out.write_all(&(bytes.len() as u32).to_le_bytes())?;
    out.write_all(stream)?;
    out.write_all(bytes)
}

fn compare(seed: u64, count: usize) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let mut random = Random(seed | 1);
    for _ in 0..count {
        let bytes = input(&mut random);
        let mut stream = encode(&bytes);
        record(&mut out, b'e', &stream, Some(&bytes))?;
        // A long one would nearly always be refused for what comes late.
        if stream.len() > 8192 {
            stream = encode(&bytes[..random.below(4096)]);
        }
        damage(&mut stream, &mut random);
        record(&mut out, b'd', &stream, decode(&stream).as_deref())?;
        let stream = codes(&mut random);
        record(&mut out, b'c', &stream, decode(&stream).as_deref())?;
    }
    out.flush()
}

/// A stream of just these codes, each as long as it is at its place.
fn of_codes(all: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut codes = Codes::new();
    all.into_iter().for_each(|code| codes.put(code));
    codes.finish()
}

/// What lies in tests/weezl/golden: NAME.lzw and what it stands for, NAME; and in tests/fuzz/corpus/lzw.
fn golden(tests: &str) -> std::io::Result<()> {
    const CLEAR: usize = 256;
    const END: usize = 257;
    let mut random = Random(1);
    let noise: Vec<u8> = (0..8000).map(|_| random.byte()).collect();
    let text: Vec<u8> = (0..600)
        .flat_map(|_| WORDS[random.below(WORDS.len())].bytes())
        .collect();
    let encoded: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("byte", b"a"),
        ("same", &[0; 5000]),       // each code is the newest
        ("text", &text),            // three lengths of codes
        ("full", &fresh(3839)),     // the last code fills the table, then comes the end
        ("one-more", &fresh(3840)), // one more: a clear before it
        ("noise", &noise),          // two clears
    ];
    for (name, bytes) in encoded {
        std::fs::write(format!("{tests}/weezl/golden/{name}"), bytes)?;
        std::fs::write(format!("{tests}/weezl/golden/{name}.lzw"), encode(bytes))?;
        std::fs::write(format!("{tests}/fuzz/corpus/lzw/{name}"), encode(bytes))?;
    }

    let literals = |n: usize| (0..n).map(|i| i * 7 % 256);
    let filled = || literals(3839);
    let newest = || std::iter::once(0).chain(258..4096);
    let mut not_aligned = of_codes([65, 66, 67]);
    not_aligned.pop();
    let made = [
        ("nothing", vec![]),
        ("no-clear", of_codes([65, 66, END])),
        ("no-end", of_codes([CLEAR, 65, 66])),
        ("end-cut", not_aligned),
        ("end-only", of_codes([END])),
        (
            "behind-the-end",
            of_codes([CLEAR, 65, END, 66, 67, 999, 68]),
        ),
        (
            "clear-clear",
            of_codes([CLEAR, CLEAR, 65, 66, 258, CLEAR, CLEAR, 67, END]),
        ),
        ("newest", of_codes([CLEAR, 65, 258, 259, 260, 66, 258, END])),
        ("newest-first", of_codes([CLEAR, 258, END])),
        (
            "newest-after-clear",
            of_codes([CLEAR, 65, 66, 258, CLEAR, 258, END]),
        ),
        ("beyond", of_codes([CLEAR, 65, 259, END])),
        (
            "ten-bits",
            of_codes(literals(254).chain([1, 2, 511, 512, END])),
        ),
        (
            "eleven-bits",
            of_codes(literals(766).chain([1, 2, 1023, 1024, END])),
        ),
        (
            "twelve-bits",
            of_codes(literals(1790).chain([1, 2, 2047, 2048, END])),
        ),
        (
            "full-newest",
            of_codes(filled().take(3838).chain([4095, 4095, END])),
        ),
        (
            "full-goes-on",
            of_codes(filled().chain((0..200).map(|i| 4095 - i)).chain([END])),
        ),
        (
            "full-clear",
            of_codes(filled().chain([4095, CLEAR, 65, 66, 258, END])),
        ),
        ("longest", of_codes(newest().chain([4095, END]))), // 7.4 MB
        ("long", of_codes(newest().take(300).chain([400, 555, END]))),
    ];
    for (name, stream) in made {
        std::fs::write(format!("{tests}/fuzz/corpus/lzw/{name}"), stream)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let input = || {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    };
    let done = match words[..] {
        ["compare", seed, count] => match (seed.parse(), count.parse()) {
            (Ok(seed), Ok(count)) => compare(seed, count),
            _ => return ExitCode::from(2),
        },
        ["golden", tests] => golden(tests),
        ["encode"] => input().and_then(|bytes| std::io::stdout().write_all(&encode(&bytes))),
        ["decode"] => match input().map(|stream| decode(&stream)) {
            Ok(Some(bytes)) => std::io::stdout().write_all(&bytes),
            Ok(None) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        _ => {
            eprintln!("usage: weezl-streams compare SEED COUNT | golden TESTS | encode | decode");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weezl-streams: {error}");
            ExitCode::FAILURE
        }
    }
}
