//! What a differencing disk says of its parent.

use std::ffi::OsString;

use instar_core::testkit::open;
use instar_core::{MemoryStorage, Role};
use pretty_assertions::assert_eq;

use super::{map, memory, warnings};
use crate::Vhd;
use crate::samples::{Disk, differencing, dynamic, put, seal};

#[test]
fn the_parent_is_named_best_name_first() {
    let source = open(&Vhd, memory(&differencing())).unwrap();
    assert_eq!(source.identifier(), Some(*b"sixteen bytes id"));
    let parent = source.backing().unwrap();
    assert_eq!(parent.role, Role::Parent);
    let names = [".\\base.vhd", "/srv/base.vhd", "D:\\base.vhd", "base.vhd"].map(OsString::from);
    assert_eq!(parent.names, names);
    assert_eq!(parent.format.as_deref(), Some("vhd"));
    assert_eq!(parent.identifiers, [*b"id of the parent"]);
    assert!(open(&Vhd, memory(&dynamic())).unwrap().backing().is_none());
}

#[test]
fn a_parent_without_an_id_may_be_any() {
    let mut bytes = differencing().bytes();
    put(&mut bytes, 512 + 40, &[0; 16]);
    let source = open(&Vhd, MemoryStorage::from_bytes(bytes)).unwrap();
    assert!(source.backing().unwrap().identifiers.is_empty());
}

/// The names of the parent, and the warnings on the way to them.
fn names(bytes: &[u8]) -> (Vec<OsString>, Vec<String>) {
    let source = open(&Vhd, MemoryStorage::from_bytes(bytes.to_vec())).unwrap();
    (source.backing().unwrap().names.clone(), warnings(bytes.to_vec()))
}

#[test]
fn a_name_of_the_parent_that_leads_nowhere_is_left_out() {
    let whole = names(&differencing().bytes());
    assert_eq!(whole.1, [""; 0]);
    // Of the locator of `D:\\base.vhd`.
    let (length_at, offset_at) = (512 + 576 + 8, 512 + 576 + 16);
    let file = differencing().bytes().len();
    for (at, value, warning) in [
        (
            length_at,
            0x7fff_ffff_u32.to_be_bytes().as_slice(),
            Some(
                "the parent locator's length in bytes is 2147483647, at most 1048576 is allowed; \
                 left out"
                    .to_owned(),
            ),
        ),
        (
            offset_at,
            &[0xff; 8],
            Some(format!(
                "parent locator (22 bytes at 0xffffffffffffffff) is outside the file of {file} \
                 bytes; left out"
            )),
        ),
        // One without text is none, wherever it is.
        (length_at, &[0; 4], None),
    ] {
        let mut bytes = differencing().bytes();
        put(&mut bytes, 512 + 36, &[0; 4]);
        put(&mut bytes, at, value);
        if value.len() == 4 && value[0] == 0 {
            put(&mut bytes, offset_at, &[0xff; 8]);
        }
        let mut header = bytes[512..1536].to_vec();
        seal(&mut header, 36);
        put(&mut bytes, 512, &header);
        let (left, warnings) = names(&bytes);
        assert_eq!(warnings, Vec::from_iter(warning));
        assert_eq!(left, [".\\base.vhd", "/srv/base.vhd", "base.vhd"].map(OsString::from));
    }
    let nameless = Disk { locators: Vec::new(), parent_name: Vec::new(), ..differencing() };
    assert_eq!(names(&nameless.bytes()), (Vec::new(), Vec::new()));
    assert_eq!(map(memory(&nameless)), map(memory(&differencing())));
}

/// What its library does with a child whose parent has no identifier.
#[test]
fn a_disk_of_xenserver_may_have_a_raw_parent() {
    let format = |creator: &[u8; 4], id: &[u8; 16]| {
        let mut disk = differencing();
        disk.footer.creator = *creator;
        let mut bytes = disk.bytes();
        put(&mut bytes, 512 + 40, id);
        let source = open(&Vhd, MemoryStorage::from_bytes(bytes)).unwrap();
        source.backing().unwrap().format.clone().unwrap()
    };
    assert_eq!(format(b"tap\0", &[0; 16]), "raw");
    assert_eq!(format(b"tap\0", b"id of the parent"), "vhd");
    assert_eq!(format(b"win ", &[0; 16]), "vhd");
}
