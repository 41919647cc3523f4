//! Files with holes.

use instar_core::MemoryStorage;
use instar_core::testkit::Sample;

pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("empty", MemoryStorage::new(0), 0),
        Sample::new("one hole", MemoryStorage::new(1 << 40), 1),
        Sample::new("one byte", vec![1], 2),
        Sample::new("holes around data, end within a sector", holes_around_data(), 5),
    ]
}

pub(crate) fn holes_around_data() -> MemoryStorage {
    MemoryStorage::new(100_000).with_data(4096, [1; 4096]).with_data(90_000, [1; 10_000])
}
