//! Changes inputs in the ways that find mistakes in parsers. The same seed makes the same changes.

use fastrand::Rng;

use super::END_OF_PART;

/// What parsers look for, and numbers at the ends of their ranges.
const TOKENS: [&[u8]; 30] = [
    b"<",
    b">",
    b"</",
    b"&amp;",
    b"<!DOCTYPE a [<!ENTITY b \"c\">]>",
    b"<![CDATA[",
    b"<Error><Code>a</Code></Error>",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b":",
    b"/",
    b"..",
    b"/../",
    b"\\",
    b"%",
    b"%2F",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\0",
    b"\xff",
    b"-1",
    b"18446744073709551615",
    b"99999999999999999999999",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    &[END_OF_PART],
];

/// The longest input that is made.
const LONGEST: usize = 64 * 1024;

/// Makes inputs out of a seed and its neighbours.
pub(crate) struct Mutator<'a> {
    rng: Rng,
    seeds: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seeds: &'a [Vec<u8>]) -> Self {
        Self { rng: Rng::with_seed(21), seeds }
    }

    /// Returns a seed with one to four changes.
    pub(crate) fn next_input(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut input = seed.to_vec();
        for _ in 0..self.rng.usize(1..=4) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.usize(..=input.len());
        let end = (at + self.rng.usize(..32)).min(input.len());
        match self.rng.u8(..9) {
            0 => drop(input.drain(at..end)),
            1 => input.truncate(at),
            2 => {
                let repeated = input[at..end].repeat(self.rng.usize(1..64));
                input.splice(at..at, repeated);
            }
            3 => self.splice(input, at),
            4 | 5 => {
                let token = TOKENS[self.rng.usize(..TOKENS.len())];
                // In place of what is there, or before it.
                let end = if self.rng.bool() { at } else { (at + token.len()).min(input.len()) };
                input.splice(at..end, token.iter().copied());
            }
            _ if at == input.len() => input.push(self.rng.u8(..)),
            6 => input[at] ^= 1 << self.rng.u8(..8),
            7 => input[at] = self.rng.u8(..),
            _ => input[at] = input[at].wrapping_add(if self.rng.bool() { 1 } else { u8::MAX }),
        }
    }

    /// Goes on with the rest of another seed.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = &self.seeds[self.rng.usize(..self.seeds.len())];
        let from = self.rng.usize(..=other.len());
        input.truncate(at);
        input.extend_from_slice(&other[from..]);
    }
}
