//! Images that name other files, made byte by byte.

use super::polyglot::qcow2;

const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE_NAME: u32 = 0x4441_5441;
/// Where the header of such an image ends, and where the name is put.
const EXTENSIONS_AT: usize = 104;
const NAME_AT: usize = 1024;

/// An empty qcow2 image over a backing file.
pub(crate) fn overlay(name: &str, format: Option<&str>) -> Vec<u8> {
    let mut image = qcow2(1 << 20);
    put(&mut image, 8, &(NAME_AT as u64).to_be_bytes());
    put(&mut image, 16, &u32::try_from(name.len()).expect("a short name").to_be_bytes());
    put(&mut image, NAME_AT, name.as_bytes());
    if let Some(format) = format {
        extension(&mut image, BACKING_FORMAT, format);
    }
    image
}

/// An empty qcow image of 1 MiB over a backing file.
pub(crate) fn qcow_overlay(name: &str) -> Vec<u8> {
    let mut image = vec![0; 2048];
    put(&mut image, 0, b"QFI\xfb\0\0\0\x01");
    put(&mut image, 8, &(NAME_AT as u64).to_be_bytes());
    put(&mut image, 16, &u32::try_from(name.len()).expect("a short name").to_be_bytes());
    put(&mut image, 24, &(1_u64 << 20).to_be_bytes());
    put(&mut image, 32, &[12, 9]); // cluster_bits, l2_bits
    put(&mut image, 40, &512_u64.to_be_bytes()); // the L1 table
    put(&mut image, NAME_AT, name.as_bytes());
    image
}

/// An empty QED image of 1 MiB over a backing file.
pub(crate) fn qed_overlay(name: &str) -> Vec<u8> {
    const CLUSTER: usize = 4096;
    let mut image = vec![0; 3 * CLUSTER];
    put(&mut image, 0, b"QED\0");
    put(&mut image, 4, &4096_u32.to_le_bytes());
    put(&mut image, 8, &[2, 0, 0, 0, 1]); // clusters of a table and of the header
    put(&mut image, 16, &[1]); // the feature: a backing file
    put(&mut image, 40, &(CLUSTER as u64).to_le_bytes()); // the L1 table
    put(&mut image, 48, &(1_u64 << 20).to_le_bytes());
    put(&mut image, 56, &u32::try_from(NAME_AT).expect("a small offset").to_le_bytes());
    put(&mut image, 60, &u32::try_from(name.len()).expect("a short name").to_le_bytes());
    put(&mut image, NAME_AT, name.as_bytes());
    image
}

/// An empty qcow2 image whose data is in another file.
pub(crate) fn data_file(name: &str) -> Vec<u8> {
    let mut image = qcow2(1 << 20);
    put(&mut image, 72, &4_u64.to_be_bytes()); // the incompatible feature
    extension(&mut image, DATA_FILE_NAME, name);
    image
}

/// A VMDK descriptor of one extent of 1 MiB in another file.
pub(crate) fn descriptor(kind: &str, name: &str) -> Vec<u8> {
    let (create_type, offset) = match kind {
        "FLAT" => ("monolithicFlat", " 0"),
        "VMFS" => ("vmfs", ""),
        _ => ("twoGbMaxExtentSparse", ""),
    };
    let extent = format!("RW 2048 {kind} \"{name}\"{offset}");
    text(&format!("parentCID=ffffffff\ncreateType=\"{create_type}\""), &extent)
}

/// A VMDK descriptor with a parent; its own data is in `extent`.
pub(crate) fn descriptor_over(extent: &str, parent: &str) -> Vec<u8> {
    let parent = format!(
        "parentCID=12345678\ncreateType=\"monolithicFlat\"\nparentFileNameHint=\"{parent}\""
    );
    text(&parent, &format!("RW 2048 FLAT \"{extent}\" 0"))
}

fn text(header: &str, extent: &str) -> Vec<u8> {
    format!("# Disk DescriptorFile\nversion=1\nCID=00000001\n{header}\n{extent}\n").into_bytes()
}

/// Puts a name in UTF-16 in the place of another, which is as long or longer.
///
/// # Panics
/// If the other is not there.
pub(crate) fn rename_utf16(image: &mut [u8], old: &str, new: &str) {
    let encoded = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (old, mut new) = (encoded(old), encoded(new));
    assert!(new.len() <= old.len());
    new.resize(old.len(), 0);
    let at = image.windows(old.len()).position(|bytes| bytes == old).expect("the old name");
    image.get_mut(at..at + new.len()).expect("inside").copy_from_slice(&new);
}

fn extension(image: &mut [u8], kind: u32, value: &str) {
    put(image, EXTENSIONS_AT, &kind.to_be_bytes());
    let length = u32::try_from(value.len()).expect("a short name");
    put(image, EXTENSIONS_AT + 4, &length.to_be_bytes());
    put(image, EXTENSIONS_AT + 8, value.as_bytes());
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image.get_mut(at..at + bytes.len()).expect("inside the image").copy_from_slice(bytes);
}
