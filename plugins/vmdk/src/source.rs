//! A disk as a list of extents, one after the other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Flow, Held, ImageFile, MAX_LENGTH, Notices, Place,
    Reference, Result, Role, Status,
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
    /// Grain tables: an index into the source's.
    Sparse(usize),
}

impl Extent {
    /// Appends from the cursor, which is inside the extent, to its end.
    fn append(&self, all: &mut [Sparse], out: &mut Batch, notices: &Notices) -> Result<Flow> {
        let rest = self.end.saturating_sub(out.cursor());
        Ok(match &self.content {
            Content::Flat { offset } => {
                let at = offset.saturating_add(out.cursor().saturating_sub(self.start));
                // Holes of the file show as zero data, as in qemu.
                out.push(rest, Status::DataOverHoles(Place::in_file(self.file, at)))
            }
            Content::Zero => out.push(rest, Status::Zero),
            Content::Unopened => out.push(rest, Status::Absent),
            Content::Sparse(index) => match all.get_mut(*index) {
                Some(sparse) => sparse.append(self.start, self.file, out, notices)?,
                // The core says so.
                None => Flow::Stop,
            },
        })
    }
}

/// One layer: its extents, the files they lie in, and what is below.
pub(crate) struct VmdkSource {
    extents: Vec<Extent>,
    /// Of each file with grain tables once: extents in it differ only in where they start.
    sparse: Vec<Sparse>,
    files: Vec<ImageFile>,
    backing: Option<Backing>,
    size: u64,
    /// The extent that was asked last, which may hold buffers.
    last: usize,
    context: Arc<Context>,
    _held: Option<Held>,
}

impl VmdkSource {
    /// How many files with grain tables are open.
    #[cfg(test)]
    pub(crate) fn opened_tables(&self) -> usize {
        self.sparse.len()
    }

    /// The grain tables of the extent that was asked last, if it has some.
    fn last_sparse(&self) -> Option<usize> {
        match self.extents.get(self.last)?.content {
            Content::Sparse(index) => Some(index),
            _ => None,
        }
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
        let (sparse, files, context) = (vec![sparse], vec![file], Arc::clone(context));
        Self { extents, sparse, files, backing, size, last: 0, context, _held: None }
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
        let mut all_sparse: Vec<Sparse> = Vec::new();
        // By file.
        let mut known: HashMap<u32, usize> = HashMap::new();
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
                    let index = match known.get(file) {
                        Some(index) => *index,
                        None => {
                            let sparse = Sparse::open(storage, limits)?
                                .ok_or(Error::ExtentMagic { kind })?;
                            all_sparse.push(sparse);
                            *known.entry(*file).or_insert(all_sparse.len().saturating_sub(1))
                        }
                    };
                    // As in qemu, the extent's own header counts, not the line.
                    length = all_sparse.get(index).map_or(0, Sparse::length);
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
        let (sparse, context, held) = (all_sparse, Arc::clone(context), Some(held));
        Ok(Self { extents, sparse, files, backing, size: start, last: 0, context, _held: held })
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
        self.last_sparse().and_then(|index| self.sparse.get(index)).map_or(0, Sparse::buffered)
    }

    fn release(&mut self) {
        if let Some(sparse) = self.last_sparse().and_then(|index| self.sparse.get_mut(index)) {
            sparse.rest();
        }
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let mut index = self.extents.partition_point(|extent| extent.end <= out.cursor());
        loop {
            if index != self.last {
                self.release();
                self.last = index;
            }
            let Some(extent) = self.extents.get(index) else {
                return Ok(());
            };
            if extent.append(&mut self.sparse, out, &self.context.notices)? == Flow::Stop {
                return Ok(());
            }
            index = index.saturating_add(1);
        }
    }
}
