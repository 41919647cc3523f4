//! The checksum made right, for tests that alter images.

use instar_core::{Fields, MemoryStorage, SECTOR, read_padded};

use crate::disk::{HEADER_BYTES, Header};
use crate::extension::{HEAD, MAGIC};

/// The largest cluster whose checksum is made right.
const MAX_CLUSTER: u64 = 2 << 20;

/// Makes the checksum of the format extension right, if the header names one and it is there.
pub(crate) fn seal(image: &mut MemoryStorage) {
    let header = read(image, 0, HEADER_BYTES as u64);
    let Ok(header) = Header::decode(Fields::new("header", 0, &header)) else { return };
    let at = header.extension.saturating_mul(SECTOR);
    if header.extension == 0 || header.cluster() > MAX_CLUSTER {
        return;
    }
    let cluster = read(image, at, header.cluster());
    if let Some((head, rest)) = cluster.split_at_checked(HEAD) {
        if head.starts_with(&MAGIC.to_le_bytes()) {
            image.patch(at.saturating_add(8), &md5::compute(rest).0);
        }
    }
}

fn read(image: &MemoryStorage, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // Memory is always read.
    let _ = read_padded(image, at, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::{self, open};
    use instar_core::{MemoryStorage, SECTOR};
    use pretty_assertions::assert_eq;

    use crate::Parallels;
    use crate::samples::with_bitmaps;

    #[test]
    fn an_altered_extension_opens_once_it_is_sealed() {
        let whole = with_bitmaps().bytes();
        let sector = u64::from_le_bytes(*whole[56..].first_chunk().unwrap());
        let mut image = MemoryStorage::from_bytes(whole.clone());
        testkit::seal("parallels", &mut image);
        assert_eq!(image.pieces().collect::<Vec<_>>(), [(0, whole.as_slice())]);
        // The id of the first bitmap.
        image.patch(sector * SECTOR + 24 + 24 + 8, b"?");
        let error = open(&Parallels, image.clone()).err().unwrap().to_string();
        assert!(error.contains("checksum"), "{error}");
        testkit::seal("parallels", &mut image);
        assert!(open(&Parallels, image).is_ok());
    }
}
