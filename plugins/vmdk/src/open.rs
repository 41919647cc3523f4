//! From a file to a layer: which of the kinds it is, and what its descriptor says.

use std::sync::Arc;

use instar_core::{
    Backing, ErrorKind, Image, Limits, Notices, Result, Role, SECTOR, Storage, quoted, read_padded,
};

use crate::descriptor::{self, CID_NOPARENT, CreateType, Descriptor, Parent};
use crate::disk::SparseHeader;
use crate::error::Error;
use crate::source::{Named, VmdkSource};
use crate::sparse::{Kind, Sparse, head, open_hosted};

/// Where qemu takes an embedded descriptor to be, in bytes, whatever the header says.
const EMBEDDED_AT: u64 = SECTOR;
/// How much of an embedded descriptor qemu reads: 20 sectors.
const EMBEDDED_LENGTH: u64 = 20 * SECTOR;

/// Opens any file that is a VMDK.
pub(crate) fn open(image: &Image<'_>) -> Result<VmdkSource> {
    let limits = &image.context.limits;
    let head = head(&image.storage, limits)?;
    match head.as_ref().and_then(|head| Kind::of(head)) {
        None => open_text(image),
        Some(kind @ Kind::Hosted) => {
            let bytes = head.unwrap_or([0; 512]);
            let fields = kind.header(&bytes, image.storage.len())?;
            open_embedded(image, &SparseHeader::decode(&fields)?)
        }
        Some(Kind::Cowd | Kind::SeSparse) => open_alone(image),
    }
}

/// A hosted sparse extent, which is a whole disk if it has a descriptor inside.
fn open_embedded(image: &Image<'_>, header: &SparseHeader) -> Result<VmdkSource> {
    let Image { storage, context, .. } = image;
    if header.capacity_sectors == 0 && header.descriptor_sector != 0 {
        let Embedded { text, at, needed } = described(storage, header, &context.limits)?;
        let file = storage.len();
        let unless_cut = |error| unless_cut(error, needed, file, at);
        let create_type = descriptor::create_type(&text).map_err(unless_cut)?;
        let descriptor = Descriptor::parse(&text, at).map_err(unless_cut)?;
        if create_type == CreateType::Extents {
            return composed(image, descriptor, text.len());
        }
        // A disk of no size, or one whose size is in the header's copy at the end.
        let Descriptor { parent, extents } = descriptor;
        if extents.is_empty() {
            let backing = backing(parent, &context.notices)?;
            return VmdkSource::composed(
                &[],
                &Named::of(&[]),
                vec![image.file()],
                backing,
                context,
            );
        }
        if header.directory_sector.is_some() {
            let at = header.at.saturating_add(SparseHeader::CAPACITY);
            return Err(Error::NoCapacity { at }.into());
        }
    }
    let sparse = Sparse::Hosted(open_hosted(header, storage, &context.limits)?);
    let parent = match Parent::parse(&text_at(storage, EMBEDDED_AT, EMBEDDED_LENGTH)?, EMBEDDED_AT)
    {
        Ok(parent) => parent,
        Err(_) if header.descriptor_sector == 0 => return alone(image, sparse),
        // Not where qemu looks, so where the header says.
        Err(_) => {
            let Embedded { text, at, needed } = described(storage, header, &context.limits)?;
            let parent = Parent::parse(&text, at);
            parent.map_err(|error| unless_cut(error, needed, storage.len(), at))?
        }
    };
    let backing = backing(parent, &context.notices)?;
    Ok(VmdkSource::single(sparse, image.file(), backing, context))
}

/// An extent of ESX, which is part of a disk whose descriptor is another file.
fn open_alone(image: &Image<'_>) -> Result<VmdkSource> {
    let Image { storage, context, .. } = image;
    let sparse = Sparse::open(storage, &context.limits)?.ok_or(Error::NotVmdk)?;
    // No writer puts a descriptor there, but qemu maps such a file only if there is one.
    match Parent::parse(&text_at(storage, EMBEDDED_AT, EMBEDDED_LENGTH)?, EMBEDDED_AT) {
        Ok(parent) => {
            let backing = backing(parent, &context.notices)?;
            Ok(VmdkSource::single(sparse, image.file(), backing, context))
        }
        Err(_) => alone(image, sparse),
    }
}

/// One extent of a disk, mapped as if it were the whole.
fn alone(image: &Image<'_>, sparse: Sparse) -> Result<VmdkSource> {
    image.context.notices.warn(
        "the file is one extent without a descriptor: mapped alone, without the rest of its disk \
         or a parent",
    )?;
    Ok(VmdkSource::single(sparse, image.file(), None, image.context))
}

/// A descriptor in a file of its own.
fn open_text(image: &Image<'_>) -> Result<VmdkSource> {
    let allowed = image.context.limits.description;
    let text = text_at(&image.storage, 0, allowed.saturating_add(1))?;
    let create_type = descriptor::create_type(&text)?;
    if text.len() as u64 > allowed {
        return Err(Error::DescriptorSize { allowed }.into());
    }
    if create_type == CreateType::SingleFile {
        return Err(Error::SingleFileText.into());
    }
    composed(image, Descriptor::parse(&text, 0)?, text.len())
}

/// A disk whose extents are in other files.
///
/// `text` is how many bytes the descriptor's text has.
fn composed(image: &Image<'_>, descriptor: Descriptor<'_>, text: usize) -> Result<VmdkSource> {
    let context = image.context;
    let Descriptor { parent, extents } = descriptor;
    let named = Named::of(&extents);
    // For as long as the descriptor is there.
    let bytes = named.bytes(&extents).saturating_add(text as u64);
    let _held = context.hold("what the descriptor says", bytes)?;
    let files = image.members(&named.references())?;
    let backing = backing(parent, &context.notices)?;
    VmdkSource::composed(&extents, &named, files, backing, context)
}

/// The layer below, as the descriptor names it.
///
/// The hint decides, as in qemu; a content identifier that disagrees is worth a warning.
fn backing(parent: Parent, notices: &Notices) -> Result<Option<Backing>> {
    let Parent { hint, cid } = parent;
    match (&hint, cid) {
        (Some(name), CID_NOPARENT) => notices.warn(format!(
            "parentCID says that there is no parent, but parentFileNameHint names {}",
            quoted(name.as_encoded_bytes())
        ))?,
        (None, cid) if cid != CID_NOPARENT => notices.warn(format!(
            "parentCID is {cid:08x}, but there is no parentFileNameHint: mapped without a parent"
        ))?,
        _ => {}
    }
    Ok(hint.map(|name| Backing {
        role: Role::Backing,
        names: vec![name],
        format: Some("vmdk".to_owned()),
        // A child knows its parent by a number that changes with every write: not compared.
        identifiers: Vec::new(),
    }))
}

/// A descriptor inside a sparse extent.
struct Embedded {
    text: Vec<u8>,
    /// Its file offset, in bytes.
    at: u64,
    /// Where the header says that its space ends; 0 if it does not say.
    needed: u64,
}

/// What is wrong with an embedded descriptor at `at` whose space ends at `needed`: the error, unless
/// the file ends before.
fn unless_cut(error: Error, needed: u64, file: u64, at: u64) -> instar_core::Error {
    let error = instar_core::Error::from(error);
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::WrongFormat if file < needed => {
            Error::DescriptorCut { file, needed, at }.into()
        }
        _ => error,
    }
}

/// The embedded descriptor that `header` points to.
fn described(
    storage: &Arc<dyn Storage>,
    header: &SparseHeader,
    limits: &Limits,
) -> Result<Embedded> {
    let (sector, sectors) = (header.descriptor_sector, header.descriptor_sectors);
    let field = header.at.saturating_add(SparseHeader::DESCRIPTOR);
    let at = sector.checked_mul(SECTOR).ok_or(Error::EmbeddedPlace { sector, at: field })?;
    let allowed = limits.description;
    let length = match sectors.checked_mul(SECTOR) {
        // Not filled in by some; a NUL ends the text anyway.
        Some(0) => EMBEDDED_LENGTH,
        Some(length) if length <= allowed => length,
        _ => {
            return Err(Error::EmbeddedSize { sectors, allowed, at: field }.into());
        }
    };
    let needed = if sectors == 0 { 0 } else { at.saturating_add(length) };
    Ok(Embedded { text: text_at(storage, at, length)?, at, needed })
}

/// At most `length` bytes of text at file offset `at`, up to a NUL or the end of the file.
fn text_at(storage: &Arc<dyn Storage>, at: u64, length: u64) -> Result<Vec<u8>> {
    let length = length.min(storage.len().saturating_sub(at));
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    read_padded(storage.as_ref(), at, &mut text)
        .map_err(|error| instar_core::Error::io("cannot read the descriptor", error).at(at))?;
    text.truncate(descriptor::trimmed(&text).len());
    Ok(text)
}
