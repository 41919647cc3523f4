//! Files made byte by byte for tests of the command line.

/// A qcow2 image, version 3, without any cluster in use: header, refcount table, L1 table.
pub(crate) fn qcow2(size: u64) -> Vec<u8> {
    const CLUSTER_BITS: u32 = 12;
    let mut image = vec![0; 4 << CLUSTER_BITS];
    let mut put = |at: usize, bytes: &[u8]| {
        image.get_mut(at..at + bytes.len()).expect("inside the image").copy_from_slice(bytes);
    };
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &1_u32.to_be_bytes()); // L1 entries
    put(40, &(3_u64 << CLUSTER_BITS).to_be_bytes());
    put(48, &(1_u64 << CLUSTER_BITS).to_be_bytes()); // refcount table
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes()); // 16-bit refcounts
    put(100, &104_u32.to_be_bytes()); // header length
    image
}

/// The footer of a fixed VHD of this size, with the right checksum.
pub(crate) fn vhd_footer(size: u64) -> [u8; 512] {
    let mut footer = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        footer.get_mut(at..at + bytes.len()).expect("inside the footer").copy_from_slice(bytes);
    };
    put(0, b"conectix");
    put(8, &2_u32.to_be_bytes()); // features
    put(12, &0x1_0000_u32.to_be_bytes()); // version
    put(16, &u64::MAX.to_be_bytes()); // no dynamic header
    put(28, b"win ");
    put(36, b"Wi2k");
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    put(60, &2_u32.to_be_bytes()); // fixed
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer.get_mut(64..68).expect("inside the footer").copy_from_slice(&(!sum).to_be_bytes());
    footer
}
