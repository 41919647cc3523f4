//! Volumes built byte by byte. What is encrypted does not matter to the map.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;
use sha2::{Digest, Sha256, Sha512};

/// File offset of the payload in the samples of version 1.
pub(crate) const PAYLOAD: u64 = 64 * 512;

/// Size of a header in the samples of version 2: the smallest.
pub(crate) const HEADER: usize = 0x4000;

/// A volume of version 1 with one active key slot and `length` bytes of payload.
pub(crate) fn version_1(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, b"LUKS\xba\xbe\0\x01aes");
    put(&mut bytes, 40, b"xts-plain64");
    put(&mut bytes, 72, b"sha256");
    put(&mut bytes, 104, &64_u32.to_be_bytes());
    put(&mut bytes, 108, &32_u32.to_be_bytes());
    for slot in 0..8 {
        let at = 208 + 48 * slot;
        let state: u32 = if slot == 3 { 0x00ac_71f3 } else { 0x0000_dead };
        put(&mut bytes, at, &state.to_be_bytes());
        // Without effect in slots that are off.
        put(&mut bytes, at + 40, &(8 + 7 * u32::try_from(slot).unwrap()).to_be_bytes());
        put(&mut bytes, at + 44, &100_u32.to_be_bytes());
    }
    bytes.resize(usize::try_from(PAYLOAD).unwrap(), 0x5a);
    bytes.resize(bytes.len() + length, 0xa5);
    bytes
}

/// A volume of version 2.
#[derive(Clone)]
pub(crate) struct Volume {
    pub(crate) json: String,
    pub(crate) size: usize,
    pub(crate) sequence: [u64; 2],
    pub(crate) algorithm: &'static str,
    /// Bytes behind the headers.
    pub(crate) rest: usize,
}

impl Volume {
    /// A volume with these segments, the JSON text between the braces.
    pub(crate) fn new(segments: &str) -> Self {
        let keyslots = r#""keyslots":{"0":{"type":"luks2","key_size":64}}"#;
        Self {
            json: format!(
                "{{{keyslots},\"tokens\":{{}},\"segments\":{{{segments}}},\"digests\":{{}},\
                 \"config\":{{\"json_size\":\"12288\",\"keyslots_size\":\"0\"}}}}"
            ),
            size: HEADER,
            sequence: [3, 3],
            algorithm: "sha256",
            rest: 0x8000,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header(0);
        bytes.extend(self.header(1));
        bytes.resize(bytes.len() + self.rest, 0xa5);
        bytes
    }

    /// The first or the second header, sealed.
    fn header(&self, index: usize) -> Vec<u8> {
        let mut header = vec![0; self.size];
        put(&mut header, 0, if index == 0 { b"LUKS\xba\xbe" } else { b"SKUL\xba\xbe" });
        put(&mut header, 6, &2_u16.to_be_bytes());
        put(&mut header, 8, &(self.size as u64).to_be_bytes());
        put(&mut header, 16, &self.sequence[index].to_be_bytes());
        put(&mut header, 72, self.algorithm.as_bytes());
        put(&mut header, 256, &((index * self.size) as u64).to_be_bytes());
        put(&mut header, 4096, self.json.as_bytes());
        assert_eq!(header.len(), self.size, "the text fits");
        seal(&mut header);
        header
    }
}

/// Sets the checksum of a header.
pub(crate) fn seal(header: &mut Vec<u8>) {
    put(header, 448, &[0; 64]);
    let sum = match &header[72..79] {
        b"sha512\0" => Sha512::digest(&header).to_vec(),
        _ => Sha256::digest(&header).to_vec(),
    };
    put(header, 448, &sum);
}

/// Puts `piece` at `at`, lengthening `bytes` if need be.
pub(crate) fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(piece);
}

/// One segment as JSON, with `more` behind its fields.
pub(crate) fn segment(id: u32, kind: &str, offset: &str, size: &str, more: &str) -> String {
    format!(
        r#""{id}":{{"type":"{kind}","offset":"{offset}","size":"{size}","iv_tweak":"0"{more}}}"#
    )
}

/// A usual volume: one segment to the end of the file.
pub(crate) fn version_2() -> Volume {
    Volume::new(&segment(0, "crypt", "32768", "dynamic", ""))
}

/// A volume that is being encrypted in place: the first part is, the second is on its way, the
/// rest is plain; and what it was and will be.
pub(crate) fn in_transit() -> Volume {
    let segments = [
        segment(0, "crypt", "32768", "4096", ""),
        segment(1, "linear", "36864", "1024", r#","flags":["in-reencryption"]"#),
        segment(2, "linear", "40960", "dynamic", ""),
        segment(3, "linear", "32768", "dynamic", r#","flags":["backup-previous"]"#),
        segment(4, "crypt", "32768", "dynamic", r#","flags":["backup-final"]"#),
    ];
    let mut volume = Volume::new(&segments.join(","));
    let required = r#""config":{"requirements":{"mandatory":["online-reencrypt-v2"]},"#;
    volume.json = volume.json.replace(r#""config":{"#, required);
    volume
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    let sha512 = Volume { algorithm: "sha512", ..version_2() };
    let mut lost = version_2().bytes();
    lost[..4096].fill(0);
    vec![
        Sample::new("version 1", version_1(8192), 1),
        Sample::new("version 1 without payload", version_1(0), 0),
        Sample::new("version 2", version_2().bytes(), 1),
        Sample::new("version 2, checked by sha512", sha512.bytes(), 1),
        Sample::new("version 2 while it is encrypted", in_transit().bytes(), 2),
        Sample::new("version 2 without its first header", lost, 1).not_detected(),
    ]
}
