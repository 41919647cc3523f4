//! Seeded choices. The same seed gives the same choices anywhere.

pub(crate) use instar::core::testkit::Random;

/// The seed and number of random cases; printed by those who use them.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) cases: usize,
    /// Only this case, to look at one that failed.
    pub(crate) only: Option<usize>,
}

impl Plan {
    /// What `INSTAR_RANDOM_SEED`, `_CASES` and `_CASE` say.
    pub(crate) fn from_environment() -> Self {
        Self::named("RANDOM", "CASE", 40)
    }

    /// What `INSTAR_{campaign}_SEED`, `_CASES` and `_{one}` say.
    pub(crate) fn named(campaign: &str, one: &str, cases: usize) -> Self {
        let number = |name: &str| {
            let name = format!("INSTAR_{campaign}_{name}");
            let text = std::env::var(&name).ok()?;
            let value = text.parse::<u64>();
            Some(value.unwrap_or_else(|_| panic!("{name}={text} is no number")))
        };
        let small = |n: u64| usize::try_from(n).expect("a small number");
        Self {
            seed: number("SEED").unwrap_or(20_240_917),
            cases: number("CASES").map_or(cases, small),
            only: number(one).map(small),
        }
    }

    /// The choices of one case.
    pub(crate) fn choices(&self, case: usize) -> Choices {
        Choices(Random::new(self.seed.wrapping_mul(1_000_003).wrapping_add(case as u64)))
    }
}

pub(crate) struct Choices(Random);

impl Choices {
    /// One of a list.
    pub(crate) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        let at = self.0.below(list.len());
        *list.get(at).expect("a list with something in it")
    }

    /// A number below `bound`.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.0.below(n) == 0
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next() % (high - low + 1)
    }
}
