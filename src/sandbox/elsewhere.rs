//! Systems for which there is no confinement.

use super::{Applied, Cause, Confinement};

pub(super) fn apply(confinement: &Confinement) -> Applied {
    let none = || Err(Cause::Missing("only on Linux on x86-64 and aarch64".into()));
    let may_open = matches!(confinement, Confinement::ReadBelow(_));
    Applied { landlock: none(), seccomp: none(), may_open }
}

pub(super) fn system_calls(_: bool) -> Vec<&'static str> {
    Vec::new()
}
