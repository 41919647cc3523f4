//! A disk as a list of extents, one after the other.

use std::ffi::OsStr;
use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Flow, ImageFile, MAX_LENGTH, Notices, Place, Reference,
    Result, Role, Status,
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
    /// Grain tables.
    Sparse(Box<Sparse>),
}

impl Extent {
    /// Appends from the cursor, which is inside the extent, to its end.
    fn append(&mut self, out: &mut Batch, notices: &Notices) -> Result<Flow> {
        let rest = self.end.saturating_sub(out.cursor());
        Ok(match &mut self.content {
            Content::Flat { offset } => {
                let at = offset.saturating_add(out.cursor().saturating_sub(self.start));
                // Holes of the file show as zero data, as in qemu.
                out.push(rest, Status::DataOverHoles(Place::in_file(self.file, at)))
            }
            Content::Zero => out.push(rest, Status::Zero),
            Content::Unopened => out.push(rest, Status::Absent),
            Content::Sparse(sparse) => sparse.append(self.start, self.file, out, notices)?,
        })
    }
}

/// One layer: its extents, the files they lie in, and what is below.
pub(crate) struct VmdkSource {
    extents: Vec<Extent>,
    files: Vec<ImageFile>,
    backing: Option<Backing>,
    size: u64,
    /// The extent that was asked last, which may hold buffers.
    last: usize,
    context: Arc<Context>,
}

impl VmdkSource {
    /// A disk that is one sparse extent in one file.
    pub(crate) fn single(
        sparse: Sparse,
        file: ImageFile,
        backing: Option<Backing>,
        context: &Arc<Context>,
    ) -> Self {
        let size = sparse.length();
        let content = Content::Sparse(Box::new(sparse));
        let extents = vec![Extent { start: 0, end: size, file: 0, content }];
        let context = Arc::clone(context);
        Self { extents, files: vec![file], backing, size, last: 0, context }
    }

    /// A disk of the extents in `lines`. `files` are those that [`references`] asked for, in
    /// that order.
    pub(crate) fn composed(
        lines: &[ExtentLine],
        files: Vec<ImageFile>,
        backing: Option<Backing>,
        context: &Arc<Context>,
    ) -> Result<Self> {
        let limits = &context.limits;
        let mut extents = Vec::with_capacity(lines.len());
        let mut start: u64 = 0;
        let mut file: u32 = 0;
        for line in lines {
            let named = usize::try_from(file).ok().and_then(|index| files.get(index));
            let storage = named.and_then(|file| file.storage.as_ref());
            let mut length = line.length;
            let content = match (&line.content, storage) {
                (ExtentContent::Zero, _) => Content::Zero,
                (ExtentContent::Flat { offset, .. }, _) => Content::Flat { offset: *offset },
                (ExtentContent::Sparse { .. }, None) => Content::Unopened,
                (ExtentContent::Sparse { kind, .. }, Some(storage)) => {
                    let sparse =
                        Sparse::open(storage, limits)?.ok_or(Error::ExtentMagic { kind })?;
                    // As in qemu, the extent's own header counts, not the line.
                    length = sparse.length();
                    // Its own descriptor, if there is one, is not followed from here.
                    if length == 0 {
                        return Err(Error::ExtentEmpty { kind, length: line.length }.into());
                    }
                    Content::Sparse(Box::new(sparse))
                }
            };
            let end = start
                .checked_add(length)
                .filter(|end| *end <= MAX_LENGTH)
                .ok_or(Error::TotalLength)?;
            extents.push(Extent { start, end, file, content });
            start = end;
            if line.name().is_some() {
                // There are at most `descriptor::MAX_EXTENTS`.
                file = file.saturating_add(1);
            }
        }
        Ok(Self { extents, files, backing, size: start, last: 0, context: Arc::clone(context) })
    }
}

impl ExtentLine {
    /// The file that the extent is in, if it is in one.
    fn name(&self) -> Option<&OsStr> {
        match &self.content {
            ExtentContent::Flat { name, .. } | ExtentContent::Sparse { name, .. } => Some(name),
            ExtentContent::Zero => None,
        }
    }
}

/// The files that the extents in `lines` are in, one for each extent that has one.
pub(crate) fn references(lines: &[ExtentLine]) -> Vec<Reference> {
    let names = lines.iter().filter_map(ExtentLine::name);
    names.map(|name| Reference { role: Role::Extent, name: name.to_owned() }).collect()
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
        match self.extents.get(self.last).map(|extent| &extent.content) {
            Some(Content::Sparse(sparse)) => sparse.buffered(),
            _ => 0,
        }
    }

    fn release(&mut self) {
        if let Some(Extent { content: Content::Sparse(sparse), .. }) =
            self.extents.get_mut(self.last)
        {
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
            let Some(extent) = self.extents.get_mut(index) else {
                return Ok(());
            };
            if extent.append(out, &self.context.notices)? == Flow::Stop {
                return Ok(());
            }
            index = index.saturating_add(1);
        }
    }
}
