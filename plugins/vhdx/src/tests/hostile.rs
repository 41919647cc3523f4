//! Damaged images: an answer or an error, never a panic or a walk without end.

use std::collections::BTreeMap;
use std::sync::Arc;

use instar_core::testkit::{Budget, Mutator, Outcome, check_hostile, check_image, metadata, seal};

use crate::Vhdx;
use crate::samples::sound;

#[test]
fn damaged_images_are_mapped_or_refused() {
    let mut tried = 0;
    for (_, sample, _) in sound() {
        tried += check_hostile(&Vhdx, &sample.bytes(), 60);
    }
    assert!(tried > 15 * 60);
}

/// With their checksums made right, altered images are not all refused at the door.
#[test]
fn damage_behind_checksums_is_reached() {
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (_, sample, _) in sound() {
        let image = metadata(&Vhdx, Arc::new(sample.storage())).unwrap();
        for seed in 0..600 {
            let mut mutant = image.clone();
            Mutator::new(seed).mutate(&mut mutant);
            seal("vhdx", &mut mutant);
            let outcome = check_image(&Vhdx, &mutant, Budget::default(), false);
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    let count = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
    assert!(count(Outcome::Mapped) > 2000, "{outcomes:?}");
    assert!(count(Outcome::Refused) > 2000, "{outcomes:?}");
    assert!(count(Outcome::Broken) > 200, "{outcomes:?}");
}
