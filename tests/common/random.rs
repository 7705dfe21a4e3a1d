//! Random numbers that can be had again: whoever uses them prints the seed, and takes one from outside.

use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that gives the seed of the tests that use random numbers.
pub const SEED: &str = "VSYNC_TEST_SEED";

/// A generator (SplitMix64): small, quick, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The seed in [`SEED`], or a new one.
    pub fn seed() -> u64 {
        let given = std::env::var(SEED).ok().and_then(|word| word.parse().ok());
        given.unwrap_or_else(|| {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("a clock after 1970");
            // Short enough to be typed.
            now.as_micros() as u64 % 1_000_000_000
        })
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        (self.number() % count as u64) as usize
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, several: &'a [T]) -> &'a T {
        &several[self.below(several.len())]
    }

    /// A generator of its own for a part of the work, so that the parts don't depend on each other's order.
    pub fn part(&self, number: u64) -> Random {
        let mut part = Random(self.0 ^ number.wrapping_mul(0xa076_1d64_78bd_642f));
        part.number();
        part
    }
}
