//! Layers composed into one disk.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffers::Buffers;
use crate::rows::{Columns, Rows};
use crate::{
    Batch, Context, Error, ErrorKind, Extent, ExtentSource, FileName, Held, ImageFile, Limits,
    Place, Result, Row, RunKind, SECTOR, Status, Storage, check_length, run_from, shown_path,
};

/// Extents that any batch may hold, if there is room for them.
const FEW: usize = 16;

/// One open image of a chain, and what is known of the range it was last asked about.
pub struct Layer {
    source: Box<dyn ExtentSource>,
    size: u64,
    path: Arc<Path>,
    storage: Option<Arc<dyn Storage>>,
    format: &'static str,
    batch: Batch,
    /// Which extent of the batch the cursor is in, and the guest range of that extent.
    index: usize,
    extent_start: u64,
    extent_end: u64,
    /// What the source failed with after it had appended the batch.
    failed: Option<Failure>,
    host: HostRun,
    /// Of each of the source's files.
    files: Vec<LayerFile>,
    /// What the source was last known to buffer, in bytes.
    buffered: u64,
    /// Length of the disk of the layer below, in bytes; 0 if there is none.
    below: u64,
    /// How many ranges were taken from the batch.
    taken: usize,
    /// What the source holds besides, as far as the core knows; counted while the layer is there.
    _held: Option<Held>,
}

/// An error of a source that had appended extents before.
enum Failure {
    /// It is about the byte that follows the extents: if a layer above decides there, nobody asks.
    Next(Error),
    /// It counts whatever is asked next: a warning that was made an error, or an error although
    /// the question was answered to its end.
    Always(Error),
}

/// What the chain knows of a layer's file.
#[derive(Clone, Copy)]
struct LayerFile {
    /// The file's number in the chain.
    number: u32,
    /// Where the file ends, in bytes, its last sector filled up. What was not opened is not
    /// known to end.
    end: u64,
}

impl LayerFile {
    /// Of a layer without files, which has no places: whatever names it is looked at.
    const NONE: Self = Self { number: 0, end: 0 };
}

/// The last answer about holes of the host.
#[derive(Clone, Copy)]
struct HostRun {
    file: u32,
    start: u64,
    end: u64,
    kind: RunKind,
}

impl Layer {
    /// The layer of the image `path`, opened by the format called `format`.
    pub fn new(
        source: Box<dyn ExtentSource>,
        path: impl Into<Arc<Path>>,
        format: &'static str,
    ) -> Self {
        Self {
            size: source.virtual_size(),
            source,
            path: path.into(),
            storage: None,
            format,
            batch: Batch::default(),
            index: 0,
            extent_start: 0,
            extent_end: 0,
            failed: None,
            host: HostRun { file: 0, start: 0, end: 0, kind: RunKind::Data },
            files: Vec::new(),
            buffered: 0,
            below: 0,
            taken: usize::MAX,
            _held: None,
        }
    }

    /// Keeps the count of what the source holds for as long as the layer.
    #[must_use]
    pub(crate) fn holding(mut self, held: Held) -> Self {
        self._held = Some(held);
        self
    }

    /// Has the source's buffers counted, and given back if that is too much.
    pub(crate) fn settle(&mut self, buffers: &mut Buffers, context: &Context) {
        buffers.settle(self.source.as_mut(), &mut self.buffered, context.memory.total());
    }

    /// Says which file the layer was opened from.
    #[must_use]
    pub fn opened_from(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
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

    /// The status at guest offset `at` and where it ends, asking the source about no more than
    /// what lies before `end`.
    #[inline(never)]
    fn piece(
        &mut self,
        at: u64,
        end: u64,
        context: &Context,
        buffers: &mut Buffers,
    ) -> Result<(Status, u64)> {
        if at < self.extent_start || at >= self.batch.cursor() {
            self.load(at, end, context)?;
            self.settle(buffers, context);
        }
        while at >= self.extent_end {
            if self.index >= self.batch.extents().len() {
                return Err(self.broken("lost its place"));
            }
            self.go_to(self.index + 1, self.extent_end);
        }
        let Some(extent) = self.batch.extents().get(self.index) else {
            return Err(self.broken("has no extent"));
        };
        let status = extent.status().advanced(at - self.extent_start);
        self.taken = self.taken.saturating_add(1);
        match status {
            Status::DataOverHoles(place) => self.over_holes(place, at),
            other => Ok((other, self.extent_end)),
        }
    }

    /// Asks the source for a batch that starts at `at`.
    fn load(&mut self, at: u64, end: u64, context: &Context) -> Result<()> {
        match self.failed.take() {
            Some(Failure::Always(error)) => return Err(error),
            Some(Failure::Next(error)) if at == self.batch.cursor() => return Err(error),
            Some(Failure::Next(_)) | None => {}
        }
        context.notices.concern(&self.path);
        self.batch.ask(at, end.min(self.size));
        self.batch.over(self.below);
        // A layer above may hide most of what a full batch has: not much more is asked for than was
        // of use in the last one.
        self.batch.hold(self.taken.saturating_mul(2).max(FEW));
        self.taken = 0;
        let outcome = self.source.extents(&mut self.batch);
        let error = outcome.err().map(|e| e.in_format(self.format).in_file(&self.path));
        if self.batch.extents().is_empty() {
            return Err(error.unwrap_or_else(|| self.broken("made no progress")));
        }
        self.go_to(0, at);
        let is_complete = self.batch.cursor() >= self.batch.end();
        self.failed = error.map(|error| match error.kind() {
            ErrorKind::Strict => Failure::Always(error),
            _ if is_complete => Failure::Always(error),
            _ => Failure::Next(error),
        });
        Ok(())
    }

    /// The error that the end of the map must not lose, if there is one.
    fn take_pending(&mut self) -> Option<Error> {
        match self.failed.take() {
            Some(Failure::Always(error)) => Some(error),
            Some(Failure::Next(_)) | None => None,
        }
    }

    /// Appends rows of whole extents from `at` to at most `limit`, for as long as this layer, at
    /// this depth, decides alone, and returns how far that went.
    // By itself, so that what the loop needs stays in registers.
    #[inline(never)]
    fn plain_rows(
        &mut self,
        at: u64,
        limit: u64,
        depth: u32,
        is_last: bool,
        rows: &mut Rows,
        context: &Context,
    ) -> Result<u64> {
        if at == self.extent_end {
            self.go_to(self.index.saturating_add(1), at);
        }
        if at != self.extent_start {
            return Ok(at);
        }
        let mut start = at;
        let mut taken = 0;
        let known = self.batch.extents().get(self.index..).unwrap_or_default();
        // Mostly all places are in one file.
        let mut index = 0;
        let mut file = self.files.first().copied().unwrap_or(LayerFile::NONE);
        for extent in known.iter().take(rows.room()) {
            let columns = extent.kind.columns();
            if !columns.is_decided(is_last) {
                break;
            }
            if extent.kind.file() != index {
                index = extent.kind.file();
                file = self.file(index)?;
            }
            let Extent { length, offset, .. } = *extent;
            if length > limit - start {
                break;
            }
            if offset.saturating_add(length) > file.end {
                self.check_inside(columns, Place::in_file(index, offset), length, context)?;
            }
            let flags = columns.flags();
            let file = if flags.has_offset() { file.number } else { 0 };
            rows.append(Row { start, length, offset, file, depth, flags });
            // At most the limit.
            start += length;
            taken += 1;
        }
        self.taken = self.taken.saturating_add(taken);
        self.go_to(self.index + taken, start);
        Ok(start)
    }

    /// Makes the extent number `index`, which starts at `start`, the current one. The one behind
    /// the last has no length.
    #[inline]
    fn go_to(&mut self, index: usize, start: u64) {
        let length = self.batch.extents().get(index).map_or(0, |extent| extent.length);
        self.index = index;
        self.extent_start = start;
        self.extent_end = start.saturating_add(length);
    }

    /// The row of a range in which this layer, at this depth, decides.
    fn row(
        &self,
        start: u64,
        length: u64,
        depth: u32,
        columns: Columns,
        place: Place,
        context: &Context,
    ) -> Result<Row> {
        let flags = columns.flags();
        let mut number = 0;
        if flags.has_offset() {
            let file = self.file(place.file)?;
            number = file.number;
            if place.offset.saturating_add(length) > file.end {
                self.check_inside(columns, place, length, context)?;
            }
        }
        Ok(Row { start, length, offset: place.offset, file: number, depth, flags })
    }

    fn file(&self, index: u32) -> Result<LayerFile> {
        let file = usize::try_from(index).ok().and_then(|index| self.files.get(index));
        file.copied().ok_or_else(|| self.broken("named a file that it does not have"))
    }

    /// Warns of data, or of space for data, past the end of its file.
    ///
    /// Space without data may reach as far as the allocation unit in which the file ends: what was
    /// never written to a cluster need not be in the file.
    #[cold]
    fn check_inside(
        &self,
        columns: Columns,
        place: Place,
        length: u64,
        context: &Context,
    ) -> Result<()> {
        let flags = columns.flags();
        if !flags.has_offset() {
            return Ok(());
        }
        let end = self.file(place.file)?.end;
        let unit = if flags.data() { 1 } else { self.source.allocation_unit().max(1) };
        let allowed = end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        if place.offset.saturating_add(length) <= allowed {
            return Ok(());
        }
        let what = match (flags.data(), flags.present()) {
            (true, _) => "data",
            (false, true) => "space of zeros",
            (false, false) => "space of unallocated data",
        };
        self.warn_about(what, place, length, end, context)
    }

    #[cold]
    fn warn_about(
        &self,
        what: &str,
        place: Place,
        length: u64,
        end: u64,
        context: &Context,
    ) -> Result<()> {
        let index = usize::try_from(place.file).unwrap_or(usize::MAX);
        let name = self.source.files().get(index);
        let text = format!(
            "{what} past the end of {}: {length:#x} bytes at {:#x}, but the file ends at {end:#x}",
            shown_path(&name.map_or_else(|| self.path.to_path_buf(), |file| file.name.to_path())),
            place.offset,
        );
        context.notices.concern(&self.path);
        let added = |error: Error| error.in_format(self.format).in_file(&self.path);
        context.notices.warn(text).map_err(added)
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
            let run = run_from(storage.as_ref(), place.offset).map_err(|e| {
                Error::io("cannot look for holes in the file", e)
                    .at(place.offset)
                    .in_format(self.format)
                    .in_file(&self.path)
            })?;
            let (file, start) = (place.file, place.offset);
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
    files: Arc<[ImageFile]>,
    context: Arc<Context>,
    /// Up to where the disk has been asked about, and the layer that answers there: those above
    /// it are absent, each up to its limit.
    reached: u64,
    asked: usize,
    limits: Vec<u64>,
    buffers: Buffers,
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
        let mut buffers = Buffers::default();
        let extents = Buffers::extents(layers.len());
        let below: Vec<u64> = layers.iter().skip(1).map(|layer| layer.size).collect();
        for (layer, below) in layers.iter_mut().zip(below) {
            layer.below = below;
        }
        for layer in &mut layers {
            layer.buffered = 0;
            layer.settle(&mut buffers, &context);
            layer.batch.bound(extents);
            // Within a layer, equal names are one file: extents in them may merge. Names are texts
            // here: those that lead to one file, as `a/b` and `a//b` do, are not equal.
            let mut known: HashMap<&FileName, u32> = HashMap::new();
            for file in layer.source.files() {
                let next = u32::try_from(files.len())
                    .map_err(|_| Error::new(ErrorKind::Limit, "more than 2^32 files"))?;
                let number = *known.entry(&file.name).or_insert_with(|| {
                    files.push(file.clone());
                    next
                });
                let end = match &file.storage {
                    Some(storage) => {
                        check_length(storage.as_ref())
                            .map_err(|e| e.in_file(&file.name.to_path()))?;
                        storage.len().next_multiple_of(SECTOR)
                    }
                    None => u64::MAX,
                };
                layer.files.push(LayerFile { number, end });
            }
        }
        let (reached, asked, limits) = (0, 0, Vec::new());
        let files = files.into();
        Ok(Self { layers, files, context, reached, asked, limits, buffers })
    }

    /// Length of the disk in bytes: the top layer's.
    pub fn virtual_size(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.size)
    }

    /// The layers, top first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The files of all layers; [`Row::file`](crate::Row::file) counts these.
    pub fn files(&self) -> &Arc<[ImageFile]> {
        &self.files
    }

    /// Ends a map: what a source failed with after it had answered to the end, a warning that was
    /// made an error and got lost on its way, and files that were written to meanwhile.
    ///
    /// # Errors
    /// The source's; [`ErrorKind::Strict`] if warnings are errors; [`ErrorKind::Io`].
    pub fn finish(&mut self) -> Result<()> {
        match self.layers.iter_mut().find_map(Layer::take_pending) {
            Some(error) => return Err(error),
            None => self.context.notices.outstanding()?,
        }
        self.check_unchanged()
    }

    /// Warns about every file that was opened for the chain and written to since: what was read
    /// may not fit together.
    fn check_unchanged(&self) -> Result<()> {
        let mut examined = HashSet::new();
        for layer in &self.layers {
            if let Some(storage) = &layer.storage {
                self.check_file(storage, &mut examined, || layer.path.to_path_buf())?;
            }
        }
        for file in self.files.iter() {
            if let Some(storage) = &file.storage {
                self.check_file(storage, &mut examined, || file.name.to_path())?;
            }
        }
        Ok(())
    }

    /// Warns about a file that was written to, unless it is among those `examined`.
    fn check_file(
        &self,
        storage: &Arc<dyn Storage>,
        examined: &mut HashSet<*const ()>,
        name: impl Fn() -> PathBuf,
    ) -> Result<()> {
        if !examined.insert(Arc::as_ptr(storage).cast()) {
            return Ok(());
        }
        let outcome = match storage.has_changed() {
            Ok(false) => return Ok(()),
            Ok(true) => {
                self.context.notices.concern(&name());
                self.context.notices.warn("the file was written to while it was read")
            }
            Err(error) => Err(Error::io("cannot examine the file", error)),
        };
        outcome.map_err(|error| error.in_file(&name()))
    }

    /// Appends rows for the disk from `at` to at most `end`, and returns how far they go.
    ///
    /// # Errors
    /// What the layer met that had to answer for the byte behind the rows appended.
    pub(crate) fn fill(&mut self, at: u64, end: u64, rows: &mut Rows) -> Result<u64> {
        if at != self.reached {
            self.asked = 0;
            self.reached = at;
        }
        while self.reached < end && rows.room() > 0 {
            let at = self.reached;
            let limit = self.rise(at, end);
            let is_last = self.asked + 1 == self.layers.len();
            if let Some(layer) = self.layers.get_mut(self.asked) {
                let depth = depth_of(self.asked);
                let stop = layer.plain_rows(at, limit, depth, is_last, rows, &self.context)?;
                if stop > at {
                    self.reached = stop;
                    continue;
                }
            }
            self.reached = self.descend(at, limit, end, rows)?;
        }
        Ok(self.reached)
    }

    /// Goes back to the lowest layer above which all are known to be absent at `at`, and returns
    /// up to where they are, or `end` if that is before.
    #[inline]
    fn rise(&mut self, at: u64, end: u64) -> u64 {
        while let Some(limit) = self.asked.checked_sub(1).and_then(|i| self.limits.get(i)) {
            if at < *limit {
                return end.min(*limit);
            }
            self.asked -= 1;
        }
        end
    }

    /// Appends one row, asking layer after layer for as long as they do not decide, from the one
    /// that is asked now.
    #[inline(never)]
    fn descend(&mut self, at: u64, limit: u64, end: u64, rows: &mut Rows) -> Result<u64> {
        let mut limit = limit;
        let first = self.asked;
        let mut layers = self.layers.iter_mut().skip(first).peekable();
        while let Some(layer) = layers.next() {
            let (status, layer_end) = layer.piece(at, end, &self.context, &mut self.buffers)?;
            limit = limit.min(layer_end);
            // Behind its end, a shorter layer below has no say: this one answers.
            match layers.peek() {
                Some(below) if status.is_absent() && at < below.size => {
                    limit = limit.min(below.size);
                    self.limits.truncate(self.asked);
                    self.limits.push(limit);
                    self.asked += 1;
                }
                _ => {
                    let (columns, place) = Columns::of(status);
                    let (depth, context) = (depth_of(self.asked), &self.context);
                    rows.append(layer.row(at, limit - at, depth, columns, place, context)?);
                    return Ok(limit);
                }
            }
        }
        Err(Error::new(ErrorKind::Bug, "a chain without layers"))
    }
}

/// The depth of the layer number `index`.
#[inline]
fn depth_of(index: usize) -> u32 {
    // There are far fewer layers than 2^32.
    u32::try_from(index).unwrap_or(u32::MAX)
}
