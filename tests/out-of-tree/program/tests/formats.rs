//! Every format of the program obeys the laws: ours on our samples, and instar's own on theirs.

use instar::core::testkit::check_registry;
use instar_plugin_foo as _; // linked, therefore registered
use pretty_assertions::assert_eq;

#[test]
fn formats_obey_the_laws_and_do_not_claim_each_others_samples() {
    let checked = check_registry(&instar::registry().expect("no name is claimed twice"));
    assert_eq!(checked["foo"].samples, 4);
    assert!(checked.len() > 1, "instar's own formats are there: {:?}", checked.keys());
}
