// SPDX-License-Identifier: Apache-2.0
//! Hosts link the library as libwasmer, plus or stock: both have the same SONAME. The build id tells
//! them, and two builds of either, apart.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libwasmer.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--build-id=sha1");
}
