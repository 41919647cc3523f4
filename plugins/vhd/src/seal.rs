//! Checksums made right, for tests that alter images.

use instar_core::{MemoryStorage, SECTOR, Storage, read_padded};

use crate::disk::{DynamicHeader, FOOTER_BYTES, Footer, checksum};

/// Makes the checksums right: of the footer and of its copy, then of the headers they name.
pub(crate) fn seal(image: &mut MemoryStorage) {
    let last = image.len().next_multiple_of(SECTOR).saturating_sub(SECTOR);
    for at in [0, last] {
        let mut footer = [0; FOOTER_BYTES];
        // Memory is always read.
        let _ = read_padded(image, at, &mut footer);
        if Footer::is_at(&footer) {
            let sum = checksum(&footer, Footer::CHECKSUM);
            image.patch(at.saturating_add(Footer::CHECKSUM.start as u64), &sum.to_be_bytes());
            let [.., a, b, c, d, e, f, g, h] = *footer.first_chunk::<24>().unwrap_or(&[0; 24]);
            seal_header(image, u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        }
    }
}

fn seal_header(image: &mut MemoryStorage, at: u64) {
    let mut header = [0; DynamicHeader::LENGTH];
    let _ = read_padded(image, at, &mut header);
    if header.starts_with(DynamicHeader::COOKIE) {
        let sum = checksum(&header, DynamicHeader::CHECKSUM);
        image.patch(at.saturating_add(DynamicHeader::CHECKSUM.start as u64), &sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::{self, open};
    use instar_core::{ErrorKind, MemoryStorage};
    use pretty_assertions::assert_eq;

    use crate::Vhd;
    use crate::samples::dynamic;

    #[test]
    fn an_altered_image_opens_once_it_is_sealed() {
        let whole = dynamic().bytes();
        let mut image = MemoryStorage::from_bytes(whole.clone());
        // The time stamp of the copy in front, the creator of the footer, the header's version.
        for at in [24, whole.len() as u64 - 512 + 28, 512 + 27] {
            image.patch(at, b"?");
        }
        let kind = |image: &MemoryStorage| open(&Vhd, image.clone()).err().map(|e| e.kind());
        assert_eq!(kind(&image), Some(ErrorKind::Corrupt));
        testkit::seal("vhd", &mut image);
        assert_eq!(kind(&image), None);
        let mut again = MemoryStorage::from_bytes(whole.clone());
        testkit::seal("vhd", &mut again);
        let same: Vec<_> = again.pieces().collect();
        assert_eq!(same, [(0, whole.as_slice())]);
    }
}
