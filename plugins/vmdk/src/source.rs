//! A disk as a list of extents, one after the other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Flow, Held, ImageFile, Limits, MAX_LENGTH, Notices,
    Place, Reference, Result, Role, Status, Storage,
};

use crate::descriptor::{ExtentContent, ExtentLine};
use crate::error::Error;
use crate::sparse::Sparse;

/// A piece of the disk with one kind of content.
struct Extent {
    /// First guest byte.
    start: u64,
    /// Guest byte behind the last one. What an extent says never reaches beyond.
    end: u64,
    /// Index into the source's files; means nothing for content without a file.
    file: u32,
    content: Content,
}

enum Content {
    /// The file's bytes from this offset on.
    Flat { offset: u64 },
    /// `ZERO`.
    Zero,
    /// Grain tables in a file that was not opened.
    Unopened,
    /// Grain tables: an index into the source's maps.
    Sparse(usize),
}

impl Extent {
    /// Appends from the cursor, which is inside the extent, to its end.
    fn append(&self, maps: &mut Maps, out: &mut Batch, notices: &Notices) -> Result<Flow> {
        let rest = self.end.saturating_sub(out.cursor());
        Ok(match &self.content {
            Content::Flat { offset } => {
                let at = offset.saturating_add(out.cursor().saturating_sub(self.start));
                // Holes of the file show as zero data, as in qemu.
                out.push(rest, Status::DataOverHoles(Place::in_file(self.file, at)))
            }
            Content::Zero => out.push(rest, Status::Zero),
            Content::Unopened => out.push(rest, Status::Absent),
            Content::Sparse(index) => match maps.map(*index) {
                Some(sparse) => sparse.append(self.start, self.file, out, notices)?,
                // The core says so.
                None => Flow::Stop,
            },
        })
    }
}

/// Bytes of memory for runs of grains, in all extents that are not being walked (instar's own limit).
const MAX_REMEMBERED: u64 = 1 << 20;

/// The grain tables of a disk, those of each file once: a descriptor may name one file many times.
///
/// Only those that were asked last hold windows of tables.
#[derive(Default)]
struct Maps {
    list: Vec<Sparse>,
    /// By the number of a file, and by its device and inode number: which of `list` is its.
    by_file: HashMap<u32, usize>,
    by_identity: HashMap<(u64, u64), usize>,
    /// Which of `list` was asked last.
    last: usize,
    /// Bytes that the others hold, to remember runs.
    remembered: u64,
}

impl Maps {
    /// Adds the extent in file number `file`, which is in `storage`, and returns its index and length;
    /// `None` if there is none.
    fn open(
        &mut self,
        file: u32,
        storage: &Arc<dyn Storage>,
        limits: &Limits,
    ) -> Result<Option<(usize, u64)>> {
        let identity = storage.identity();
        let by_identity = || self.by_identity.get(&identity?);
        let known = self.by_file.get(&file).or_else(by_identity).copied();
        let index = match known {
            Some(index) => index,
            None => {
                let Some(sparse) = Sparse::open(storage, limits)? else { return Ok(None) };
                self.list.push(sparse);
                self.list.len().saturating_sub(1)
            }
        };
        self.by_file.insert(file, index);
        self.by_identity.extend(identity.map(|identity| (identity, index)));
        Ok(self.list.get(index).map(|sparse| (index, sparse.length())))
    }

    /// Number `index`, which is asked now.
    fn map(&mut self, index: usize) -> Option<&mut Sparse> {
        if index != self.last {
            if let Some(sparse) = self.list.get_mut(self.last) {
                sparse.rest();
                self.remembered = self.remembered.saturating_add(sparse.remembered());
                if self.remembered > MAX_REMEMBERED {
                    self.remembered = self.remembered.saturating_sub(sparse.remembered());
                    sparse.release();
                }
            }
            self.last = index;
            let next = self.list.get(index).map_or(0, Sparse::remembered);
            self.remembered = self.remembered.saturating_sub(next);
        }
        self.list.get_mut(index)
    }

    /// Bytes that all of them hold.
    fn buffered(&self) -> u64 {
        let last = self.list.get(self.last).map_or(0, Sparse::buffered);
        self.remembered.saturating_add(last)
    }

    /// Gives them back.
    fn release(&mut self) {
        if self.remembered > 0 {
            self.list.iter_mut().for_each(Sparse::release);
            self.remembered = 0;
        } else if let Some(sparse) = self.list.get_mut(self.last) {
            sparse.release();
        }
    }
}

/// One layer: its extents, the files they lie in, and what is below.
pub(crate) struct VmdkSource {
    extents: Vec<Extent>,
    files: Vec<ImageFile>,
    backing: Option<Backing>,
    size: u64,
    maps: Maps,
    context: Arc<Context>,
    _held: Option<Held>,
}

impl VmdkSource {
    /// How many files with grain tables are open.
    #[cfg(test)]
    pub(crate) fn opened_tables(&self) -> usize {
        self.maps.list.len()
    }
}

/// What is counted for the lists of a source.
const EXTENTS: &str = "the list of the disk's extents";

impl VmdkSource {
    /// A disk that is one sparse extent in one file.
    pub(crate) fn single(
        sparse: Sparse,
        file: ImageFile,
        backing: Option<Backing>,
        context: &Arc<Context>,
    ) -> Self {
        let size = sparse.length();
        let extents = vec![Extent { start: 0, end: size, file: 0, content: Content::Sparse(0) }];
        let maps = Maps { list: vec![sparse], ..Maps::default() };
        let (files, context) = (vec![file], Arc::clone(context));
        Self { extents, files, backing, size, maps, context, _held: None }
    }

    /// A disk of the extents in `lines`. `files` are those of [`Named::references`], in that order.
    pub(crate) fn composed(
        lines: &[ExtentLine<'_>],
        named: &Named<'_>,
        files: Vec<ImageFile>,
        backing: Option<Backing>,
        context: &Arc<Context>,
    ) -> Result<Self> {
        let limits = &context.limits;
        let held = context.hold(EXTENTS, named.source_bytes(lines))?;
        let mut extents = Vec::with_capacity(lines.len());
        let mut maps = Maps::default();
        let mut start: u64 = 0;
        for (line, file) in lines.iter().zip(&named.indices) {
            let opened = usize::try_from(*file).ok().and_then(|index| files.get(index));
            let storage = opened.and_then(|file| file.storage.as_ref());
            let mut length = line.length;
            let content = match (&line.content, storage) {
                (ExtentContent::Zero, _) => Content::Zero,
                (ExtentContent::Flat { offset, .. }, _) => Content::Flat { offset: *offset },
                (ExtentContent::Sparse { .. }, None) => Content::Unopened,
                (ExtentContent::Sparse { kind, .. }, Some(storage)) => {
                    let opened = maps.open(*file, storage, limits)?;
                    let index;
                    // As in qemu, the extent's own header counts, not the line.
                    (index, length) = opened.ok_or(Error::ExtentMagic { kind })?;
                    // Its own descriptor, if there is one, is not followed from here.
                    if length == 0 {
                        return Err(Error::ExtentEmpty { kind, length: line.length }.into());
                    }
                    Content::Sparse(index)
                }
            };
            let end = start
                .checked_add(length)
                .filter(|end| *end <= MAX_LENGTH)
                .ok_or(Error::TotalLength)?;
            extents.push(Extent { start, end, file: *file, content });
            start = end;
        }
        let (context, held) = (Arc::clone(context), Some(held));
        Ok(Self { extents, files, backing, size: start, maps, context, _held: held })
    }
}

/// The files that extents are in, each once, in the order in which the extents name them.
pub(crate) struct Named<'a> {
    names: Vec<&'a OsStr>,
    /// Of each extent the index of its file; 0 if it has none.
    indices: Vec<u32>,
}

impl<'a> Named<'a> {
    pub(crate) fn of(lines: &[ExtentLine<'a>]) -> Self {
        let mut names = Vec::new();
        let mut known: HashMap<&OsStr, u32> = HashMap::new();
        let mut index = |name| {
            *known.entry(name).or_insert_with(|| {
                names.push(name);
                // There are at most `descriptor::MAX_EXTENTS`.
                u32::try_from(names.len().saturating_sub(1)).unwrap_or(u32::MAX)
            })
        };
        let indices = lines.iter().map(|line| line.name().map_or(0, &mut index)).collect();
        Self { names, indices }
    }

    pub(crate) fn references(&self) -> Vec<Reference> {
        let reference = |name: &&OsStr| Reference { role: Role::Extent, name: (*name).to_owned() };
        self.names.iter().map(reference).collect()
    }

    /// Bytes of memory that the lines and names take: in lists, while they are looked up, and as
    /// [`Reference`].
    pub(crate) fn bytes(&self, lines: &[ExtentLine<'_>]) -> u64 {
        let lines = lines.len().saturating_mul(size_of::<ExtentLine<'_>>() + size_of::<u32>());
        let name = size_of::<&OsStr>() + size_of::<Reference>() + 32;
        lines.saturating_add(self.names.len().saturating_mul(name)) as u64
    }

    /// Bytes of memory of a source of these extents, its files not counted.
    fn source_bytes(&self, lines: &[ExtentLine<'_>]) -> u64 {
        let is_sparse =
            |line: &&ExtentLine<'_>| matches!(line.content, ExtentContent::Sparse { .. });
        let sparse = lines.iter().filter(is_sparse).count().min(self.names.len());
        let extents = lines.len().saturating_mul(size_of::<Extent>());
        extents.saturating_add(sparse.saturating_mul(size_of::<Sparse>())) as u64
    }
}

impl ExtentSource for VmdkSource {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn buffered(&self) -> u64 {
        self.maps.buffered()
    }

    fn release(&mut self) {
        self.maps.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let mut index = self.extents.partition_point(|extent| extent.end <= out.cursor());
        loop {
            let Some(extent) = self.extents.get(index) else {
                return Ok(());
            };
            if extent.append(&mut self.maps, out, &self.context.notices)? == Flow::Stop {
                return Ok(());
            }
            index = index.saturating_add(1);
        }
    }
}
