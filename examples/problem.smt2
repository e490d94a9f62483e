; SPDX-License-Identifier: Apache-2.0
; Which two numbers, each under 2^16 and neither of them 1, multiply to 14544683?
(set-option :produce-models true)
(set-logic QF_BV)
(declare-fun p () (_ BitVec 32))
(declare-fun q () (_ BitVec 32))
(assert (= (bvmul p q) (_ bv14544683 32)))
(assert (bvult (_ bv1 32) p))
(assert (bvule p q))
(assert (bvult q (_ bv65536 32)))
(check-sat)
(get-value (p q))
(exit)
