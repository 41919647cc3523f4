//! Header extensions (spec, "Header extensions"): records of a type and a length, padded to
//! eight bytes, between the header and the backing file's name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use instar_core::{Fields, Notices, Result, escaped, shortened};

use crate::bitmaps::Directory;
use crate::disk::{Encryption, Header};
use crate::error::Error;

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const CRYPTO_HEADER: u32 = 0x0537_be77;
const BITMAPS: u32 = 0x2385_2875;
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// Longest backing format name that qemu reads, in bytes.
const MAX_FORMAT_NAME: u32 = 15;
/// Bytes in the extension that says where the LUKS header is.
const CRYPTO_LENGTH: u32 = 16;

/// What the extensions say.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) backing_format: Option<String>,
    pub(crate) data_file: Option<OsString>,
    pub(crate) bitmaps: Option<Directory>,
    has_crypto_header: bool,
}

impl Extensions {
    /// Reads the extensions of `header` out of the first cluster.
    pub(crate) fn parse(header: &Header, cluster: &Fields<'_>, notices: &Notices) -> Result<Self> {
        let mut found = Self::default();
        let mut names = None;
        for record in Records::new(header, cluster) {
            let (kind, data) = record?;
            match kind {
                FEATURE_NAMES => names = Some(data),
                // An unknown feature may change what extensions mean: only look for its name.
                _ if header.unknown_features != 0 => {}
                _ => found.take(kind, &data, header, notices)?,
            }
        }
        if header.unknown_features != 0 {
            let names = unknown_names(header.unknown_features, names.as_ref());
            return Err(instar_core::Error::from(Error::Features { names }).at(72));
        }
        if header.encryption == Encryption::Luks && !found.has_crypto_header {
            return Err(Error::NoCryptoExtension.into());
        }
        if header.has_data_file && found.data_file.is_none() {
            return Err(Error::NoDataFile.into());
        }
        Ok(found)
    }

    fn take(
        &mut self,
        kind: u32,
        data: &Fields<'_>,
        header: &Header,
        notices: &Notices,
    ) -> Result<()> {
        // Records bounds the length by the cluster.
        let length = u32::try_from(data.bytes().len()).unwrap_or(u32::MAX);
        let wrong_length = |what, expected| {
            let error = Error::ExtensionLength { what, length, expected };
            Err(instar_core::Error::from(error).at(data.offset_of(0)))
        };
        match kind {
            BACKING_FORMAT if length > MAX_FORMAT_NAME => {
                return wrong_length("backing file format name", "at most 15 are allowed");
            }
            BACKING_FORMAT => {
                let name = until_zero(data.bytes());
                let name = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
                self.backing_format = name;
            }
            CRYPTO_HEADER => {
                if header.encryption != Encryption::Luks {
                    let method = u32::from(header.encryption == Encryption::Aes);
                    return Err(Error::CryptoExtension { method }.into());
                }
                if length != CRYPTO_LENGTH {
                    return wrong_length("full disk encryption header pointer", "not 16");
                }
                let (offset, cluster) = (data.be64(0)?, header.cluster());
                if offset % cluster != 0 {
                    let table = "encryption header";
                    return Err(Error::TableUnaligned { table, offset, cluster }.into());
                }
                self.has_crypto_header = true;
            }
            BITMAPS => self.bitmaps = Directory::parse(data, header, notices)?,
            DATA_FILE_NAME if header.has_data_file => {
                self.data_file = Some(OsString::from_vec(until_zero(data.bytes()).to_vec()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A text up to its first zero: some writers count that, or what pads it, as part of it.
pub(crate) fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The records up to the end mark or the end of their room.
struct Records<'a> {
    cluster: Fields<'a>,
    at: u64,
    end: u64,
}

impl<'a> Records<'a> {
    fn new(header: &Header, cluster: &Fields<'a>) -> Self {
        let (at, end) = header.extensions;
        Self { cluster: *cluster, at, end }
    }

    fn record(&mut self) -> Result<Option<(u32, Fields<'a>)>> {
        let start = usize::try_from(self.at).unwrap_or(usize::MAX);
        let next = self.at.saturating_add(8);
        if next > self.end {
            return Ok(None);
        }
        // What lies past the end of the file reads as zeros, which are the end mark; unless
        // something is wrong and only what is in the file counts.
        if next > self.cluster.bytes().len() as u64 && !self.cluster.is_cut() {
            return Ok(None);
        }
        self.cluster.slice(start, 8)?;
        let (kind, length) = (self.cluster.be32(start)?, self.cluster.be32(start + 4)?);
        if kind == END {
            return Ok(None);
        }
        let data_at = self.at + 8;
        let room = self.end.saturating_sub(data_at);
        if u64::from(length) > room {
            let error = Error::ExtensionTooLarge { kind, length, room };
            return Err(instar_core::Error::from(error).at(self.at));
        }
        let data = self.cluster.slice(start + 8, length as usize)?;
        self.at = data_at.saturating_add(u64::from(length).next_multiple_of(8));
        Ok(Some((kind, Fields::new("header extension", data_at, data))))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u32, Fields<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.record();
        if !matches!(record, Ok(Some(_))) {
            self.end = 0;
        }
        record.transpose()
    }
}

/// Bytes of an entry of the feature name table: type, bit number, name.
const FEATURE_ENTRY: usize = 48;

/// The names of these incompatible features: from the image's own table, else their bits.
fn unknown_names(mut features: u64, table: Option<&Fields<'_>>) -> String {
    let mut names = Vec::new();
    for entry in table.map_or(&[][..], Fields::bytes).chunks_exact(FEATURE_ENTRY) {
        let (Some([kind, bit]), Some(name)) = (entry.first_chunk(), entry.get(2..)) else {
            break;
        };
        let name = until_zero(name);
        if name.is_empty() {
            break;
        }
        let mask = 1_u64.checked_shl(u32::from(*bit)).unwrap_or(0);
        // Type 0: incompatible.
        if *kind == 0 && features & mask != 0 {
            features &= !mask;
            names.push(escaped(name));
        }
    }
    if features != 0 {
        names.push(format!("unknown feature bits {features:#x}"));
    }
    shortened(&names.join(", ")).to_string()
}
