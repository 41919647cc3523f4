//! Layers composed into one disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{
    Batch, Context, Error, ErrorKind, ExtentSource, Limits, Place, Result, RunKind, Status,
};

/// One open image of a chain, and what is known of the range it was last asked about.
pub struct Layer {
    source: Box<dyn ExtentSource>,
    path: PathBuf,
    format: &'static str,
    batch: Batch,
    /// Which extent of the batch the cursor is in, and the guest range of that extent.
    index: usize,
    extent_start: u64,
    extent_end: u64,
    /// Why the batch ends where it does, if not because it was full or complete.
    failed: Option<Error>,
    host: HostRun,
    /// The chain's number of each of the source's files.
    numbers: Vec<u32>,
}

/// The last answer about holes of the host.
#[derive(Clone, Copy)]
struct HostRun {
    file: u32,
    start: u64,
    end: u64,
    kind: RunKind,
}

/// A range of the disk with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where the range ends (exclusive).
    pub(crate) end: u64,
    pub(crate) status: Status,
    /// The layer that answered; 0 is the top.
    pub(crate) depth: u32,
    /// The chain's number of the file in the status's place.
    pub(crate) file: u32,
}

impl Layer {
    /// The layer of the image `path`, opened by the format called `format`.
    pub fn new(source: Box<dyn ExtentSource>, path: &Path, format: &'static str) -> Self {
        Self {
            source,
            path: path.to_owned(),
            format,
            batch: Batch::default(),
            index: 0,
            extent_start: 0,
            extent_end: 0,
            failed: None,
            host: HostRun { file: 0, start: 0, end: 0, kind: RunKind::Data },
            numbers: Vec::new(),
        }
    }

    /// What the format knows.
    pub fn source(&self) -> &dyn ExtentSource {
        self.source.as_ref()
    }

    /// The image's name, as typed or as named by the layer above.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the image's format.
    pub fn format(&self) -> &'static str {
        self.format
    }

    fn size(&self) -> u64 {
        self.source.virtual_size()
    }

    /// The status at guest offset `at` and where it ends, asking the source about no more than
    /// what lies before `end`.
    #[inline]
    fn piece(&mut self, at: u64, end: u64, context: &Context) -> Result<(Status, u64)> {
        if at < self.extent_start || at >= self.batch.cursor() {
            self.load(at, end, context)?;
        }
        while at >= self.extent_end {
            self.index += 1;
            let Some(extent) = self.batch.extents().get(self.index) else {
                return Err(self.broken("lost its place"));
            };
            self.extent_start = self.extent_end;
            self.extent_end = self.extent_end.saturating_add(extent.length);
        }
        let Some(extent) = self.batch.extents().get(self.index) else {
            return Err(self.broken("has no extent"));
        };
        let status = extent.status.advanced(at - self.extent_start);
        match status {
            Status::DataOverHoles(place) => self.over_holes(place, at),
            other => Ok((other, self.extent_end)),
        }
    }

    /// Asks the source for a batch that starts at `at`.
    fn load(&mut self, at: u64, end: u64, context: &Context) -> Result<()> {
        if let Some(error) = self.failed.take() {
            if at == self.batch.cursor() {
                return Err(error);
            }
        }
        self.batch.ask(at, end.min(self.size()));
        let outcome = self.source.extents(&mut self.batch);
        let error = outcome.err().map(|e| e.in_format(self.format).in_file(&self.path));
        self.warn_past_end(context)?;
        let Some(first) = self.batch.extents().first() else {
            return Err(error.unwrap_or_else(|| self.broken("made no progress")));
        };
        self.index = 0;
        self.extent_start = at;
        self.extent_end = at.saturating_add(first.length);
        self.failed = error;
        Ok(())
    }

    /// Notices data that would lie behind the end of its file.
    fn warn_past_end(&self, context: &Context) -> Result<()> {
        let files = self.source.files();
        for extent in self.batch.extents() {
            let (Status::Data(place) | Status::DataOverHoles(place)) = extent.status else {
                continue;
            };
            let Some(file) = usize::try_from(place.file).ok().and_then(|i| files.get(i)) else {
                return Err(self.broken("named a file that it does not have"));
            };
            let Some(storage) = &file.storage else {
                continue;
            };
            let end = place.offset.checked_add(extent.length);
            if end.is_none_or(|end| end > storage.len()) {
                context
                    .notices
                    .warn(format!(
                        "{}: data past the end of the file (mapped to {:#x}, length {:#x}, but \
                         the file has {} bytes)",
                        file.name.display(),
                        place.offset,
                        extent.length,
                        storage.len()
                    ))
                    .map_err(|e| e.in_format(self.format).in_file(&self.path))?;
                break;
            }
        }
        Ok(())
    }

    /// Splits data at the borders of the host file's holes.
    fn over_holes(&mut self, place: Place, at: u64) -> Result<(Status, u64)> {
        let known = self.host.file == place.file
            && self.host.start <= place.offset
            && place.offset < self.host.end;
        if !known {
            let file = usize::try_from(place.file).ok().and_then(|i| self.source.files().get(i));
            let Some(storage) = file.and_then(|file| file.storage.as_ref()) else {
                // Not opened: nobody can tell.
                return Ok((Status::Data(place), self.extent_end));
            };
            let run = storage.run_at(place.offset).map_err(|e| {
                Error::io("cannot look for holes in the file", e)
                    .at(place.offset)
                    .in_format(self.format)
                    .in_file(&self.path)
            })?;
            let HostRun { file, start, .. } =
                HostRun { file: place.file, start: place.offset, ..self.host };
            self.host = HostRun { file, start, end: run.end, kind: run.kind };
        }
        let rest = self.host.end - place.offset;
        let end = self.extent_end.min(at.saturating_add(rest));
        let status = match self.host.kind {
            RunKind::Data => Status::Data(place),
            RunKind::Hole => Status::DataInHole(place),
        };
        Ok((status, end))
    }

    /// The chain's number of the file that `status` points into.
    #[inline]
    fn file_number(&self, status: Status) -> u32 {
        status
            .place()
            .and_then(|place| self.numbers.get(usize::try_from(place.file).ok()?))
            .copied()
            .unwrap_or(0)
    }

    #[cold]
    fn broken(&self, what: &str) -> Error {
        Error::new(ErrorKind::Bug, format!("the format's source {what}"))
            .in_format(self.format)
            .in_file(&self.path)
    }
}

/// The layers of a disk, top first: where one does not decide, the next is asked.
pub struct Chain {
    layers: Vec<Layer>,
    files: Vec<PathBuf>,
    context: Arc<Context>,
}

impl Chain {
    /// Composes `layers`, top first.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for no layer, [`ErrorKind::Limit`] for more than
    /// [`Limits::depth`] below the top.
    pub fn new(mut layers: Vec<Layer>, context: Arc<Context>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "a chain has at least one layer"));
        }
        let below = layers.len() as u64 - 1;
        Limits::check("the number of backing files", below, context.limits.depth as u64)?;
        let mut files = Vec::new();
        for layer in &mut layers {
            // Within a layer, equal names are one file: extents in them may merge.
            let mut known: HashMap<&Path, u32> = HashMap::new();
            for file in layer.source.files() {
                let next = u32::try_from(files.len())
                    .map_err(|_| Error::new(ErrorKind::Limit, "more than 2^32 files"))?;
                let number = *known.entry(&file.name).or_insert_with(|| {
                    files.push(file.name.clone());
                    next
                });
                layer.numbers.push(number);
            }
        }
        Ok(Self { layers, files, context })
    }

    /// Length of the disk in bytes: the top layer's.
    pub fn virtual_size(&self) -> u64 {
        self.layers.first().map_or(0, Layer::size)
    }

    /// The layers, top first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The files of all layers; [`Row::file`](crate::Row::file) counts these.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The answer for the guest byte `at` and for what follows it, up to at most `end`.
    #[inline]
    pub(crate) fn piece(&mut self, at: u64, end: u64) -> Result<Piece> {
        let mut limit = end;
        let mut depth = 0;
        let mut layers = self.layers.iter_mut().peekable();
        while let Some(layer) = layers.next() {
            let (status, layer_end) = layer.piece(at, end, &self.context)?;
            limit = limit.min(layer_end);
            if status.is_absent() {
                if let Some(below) = layers.peek() {
                    let size = below.size();
                    if at < size {
                        limit = limit.min(size);
                        depth += 1;
                        continue;
                    }
                }
            }
            return Ok(Piece { end: limit, status, depth, file: layer.file_number(status) });
        }
        Err(Error::new(ErrorKind::Bug, "a chain without layers"))
    }
}
