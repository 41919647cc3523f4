//! Walking the active L1 and L2 tables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Fields, Flow, Image, ImageFile, Place, Reference,
    References, Result, Role, SECTOR, Status, Storage, Stretch, TableReader, Upper, read_padded,
    zero_entries,
};

use crate::disk::{self, Encryption, Header};
use crate::entry::{self, Rules, SUBCLUSTERS};
use crate::error::Error;
use crate::extensions::{Extensions, until_zero};
use crate::refcounts::looks_metadata_preallocated;
use crate::snapshots;
use crate::structures::Structures;
use crate::uniform::{EXTENDED, STANDARD, Uniform};

/// An open qcow2 image.
pub(crate) struct Qcow2Source {
    header: Header,
    rules: Rules,
    /// Whether `rules` know if holes of the host matter: found out with the first L2 table.
    knows_holes: bool,
    storage: Arc<dyn Storage>,
    context: Arc<Context>,
    files: [ImageFile; 1],
    backing: Option<Backing>,
    l1: TableReader,
    l2: TableReader,
    references: References,
    uniform: Uniform,
    structures: Structures,
}

impl Qcow2Source {
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let storage = &image.storage;
        let limits = &image.context.limits;
        let first_cluster = read_first_cluster(storage.as_ref())?;
        let fields = Fields::new("header", 0, &first_cluster);
        let header = Header::parse(&fields)?;
        let extensions = Extensions::parse(&header, &fields, &image.context.notices)?;
        check_l1_is_inside(&header, storage.len())?;
        snapshots::check(header.snapshots, storage, limits)?;
        if let Some(directory) = extensions.bitmaps {
            directory.check(&header, storage, limits)?;
        }
        let structures = Structures::new(&header, extensions.bitmaps);
        structures.check(&image.context.notices)?;
        let file = match extensions.data_file {
            Some(name) => data_file(image, name)?,
            None => image.file(),
        };
        Ok(Self {
            rules: Rules {
                cluster: header.cluster(),
                version: header.version,
                has_data_file: header.has_data_file,
                encrypted: header.encryption != Encryption::None,
                over_holes: false,
            },
            knows_holes: header.encryption != Encryption::None,
            backing: backing(&header, &first_cluster, extensions.backing_format),
            files: [file],
            storage: Arc::clone(storage),
            context: Arc::clone(image.context),
            l1: TableReader::new("L1 table", Arc::clone(storage), limits),
            l2: TableReader::new("L2 table", Arc::clone(storage), limits),
            references: References::new("L2 tables", storage.len(), header.cluster()),
            uniform: Uniform::default(),
            structures,
            header,
        })
    }

    /// Appends all that `count` L2 tables cover, from that of L1 index `first` on, in which the
    /// cursor is.
    fn push_tables(&self, first: u64, count: u64, status: Status, out: &mut Batch) -> Flow {
        let shift = self.header.cluster_bits + self.header.l2_bits();
        let end = (first + count).checked_shl(shift).unwrap_or(u64::MAX);
        out.push(end - out.cursor(), status)
    }

    /// Appends what the L2 table at file offset `table` says, which is that of L1 index `l1_index`
    /// and of the cursor.
    fn table(&mut self, l1_index: u64, table: u64, out: &mut Batch) -> Result<Flow> {
        let Header { cluster_bits, extended_l2, .. } = self.header;
        let l2_bits = self.header.l2_bits();
        let cluster = self.rules.cluster;
        if table % cluster != 0 {
            return Err(Error::L2Unaligned { index: l1_index, offset: table, cluster }.into());
        }
        self.learn_holes()?;
        if self.references.count(l1_index, &self.context.notices)? {
            self.structures.check_table(l1_index, table, &self.context.notices)?;
        }
        let known = self.uniform.status(table, cluster, &mut self.l2)?;
        if let Some(status) = known {
            return Ok(self.push_tables(l1_index, 1, status, out));
        }
        let in_table = (1 << l2_bits) - 1;
        let first = (out.cursor() >> cluster_bits) & in_table;
        // The entries of the question, as far as they are in this table.
        let wanted = out.end().div_ceil(cluster) - (out.cursor() >> cluster_bits);
        let count = wanted.min(in_table + 1 - first);
        let size = if extended_l2 { EXTENDED } else { STANDARD };
        // A table is a cluster, so the product is at most 2 MiB, and `table` is below 2^56.
        let length = usize::try_from(count * size).unwrap_or(0);
        let entries = self.l2.bytes(table + first * size, length)?;
        if count > in_table {
            self.uniform.learn(table, entries, &self.rules, extended_l2);
        }
        if extended_l2 {
            extended(&self.rules, entries, out)
        } else {
            standard(&self.rules, entries, out)
        }
    }

    fn learn_holes(&mut self) -> Result<()> {
        if !self.knows_holes {
            self.rules.over_holes =
                looks_metadata_preallocated(&self.header, &self.storage, &self.context)?;
            self.knows_holes = true;
        }
        Ok(())
    }
}

impl ExtentSource for Qcow2Source {
    fn virtual_size(&self) -> u64 {
        self.header.virtual_size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn buffered(&self) -> u64 {
        self.l1.buffered() + self.l2.buffered() + self.uniform.buffered()
    }

    fn release(&mut self) {
        self.l1.release();
        self.l2.release();
        self.uniform.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let upper = Upper {
            at: self.header.l1_offset,
            lower: self.header.cluster(),
            place: |entry| u64::from_be_bytes(entry) & entry::OFFSET,
        };
        let shift = self.header.cluster_bits + self.header.l2_bits();
        while out.cursor() < out.end() {
            let first = out.cursor() >> shift;
            // The question ends with the disk, for which the table has been checked to have
            // entries enough and to be in the file.
            let wanted = out.end().div_ceil(1 << shift) - first;
            let flow = match self.l1.stretch(&upper, first, wanted)? {
                Stretch::Absent(count) => self.push_tables(first, count, Status::Absent, out),
                Stretch::Table(table) => self.table(first, table, out)?,
            };
            if flow == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// Appends the clusters that these entries describe; the cursor is in the first one.
fn standard(rules: &Rules, mut entries: &[u8], out: &mut Batch) -> Result<Flow> {
    let cluster = rules.cluster;
    loop {
        match plain(rules, &mut entries, out) {
            Flow::More if !entries.is_empty() => {}
            flow => return Ok(flow),
        }
        // Only of the first cluster a part may be in front of the cursor.
        let inside = out.cursor() & (cluster - 1);
        let entry = be64(entries);
        let status = rules.standard(entry, out.cursor() - inside)?;
        let count = match status {
            Status::Compressed => {
                entries.chunks_exact(8).take_while(|next| entry::is_compressed(be64(next))).count()
            }
            // An entry without a place is repeated, one with a place moves on by a cluster.
            Status::Absent | Status::Zero => continued(entries, entry, 0),
            _ => continued(entries, entry, cluster),
        };
        if out.push(count as u64 * cluster - inside, status.advanced(inside)) == Flow::Stop {
            return Ok(Flow::Stop);
        }
        entries = entries.get(count * 8..).unwrap_or_default();
    }
}

/// Appends what most entries are, without the questions that they do not raise: as many as there
/// are in front of one that is something else, if they find room. Takes them from `entries`.
// By itself, so that what the loop needs stays in registers.
#[inline(never)]
fn plain(rules: &Rules, entries: &mut &[u8], out: &mut Batch) -> Flow {
    let cluster = rules.cluster;
    let unusual = rules.unusual();
    let over_holes = rules.over_holes;
    // Only of the first cluster a part may be in front of the cursor.
    let mut inside = out.cursor() & (cluster - 1);
    let mut out = out.tail();
    let mut rest = *entries;
    while let Some((first, next)) = rest.split_first_chunk() {
        let entry = u64::from_be_bytes(*first);
        if entry & unusual != 0 {
            break;
        }
        if entry == 0 {
            let zeros = zero_entries::<8>(rest);
            if out.push(zeros as u64 * cluster - inside, Status::Absent) == Flow::Stop {
                return Flow::Stop;
            }
            inside = 0;
            rest = rest.get(zeros * 8..).unwrap_or_default();
            continue;
        }
        rest = next;
        let offset = entry & entry::OFFSET;
        let step = if offset == 0 { 0 } else { cluster };
        let mut expected = entry.wrapping_add(step);
        let mut length = cluster - inside;
        while let Some((first, next)) = rest.split_first_chunk() {
            if u64::from_be_bytes(*first) != expected {
                break;
            }
            rest = next;
            expected = expected.wrapping_add(step);
            length += cluster;
        }
        let place = Place::at(offset + inside);
        let flow = match offset {
            0 => out.push(length, Status::Absent),
            _ if over_holes => out.push(length, Status::DataOverHoles(place)),
            _ => out.push(length, Status::Data(place)),
        };
        if flow == Flow::Stop {
            return Flow::Stop;
        }
        inside = 0;
    }
    *entries = rest;
    Flow::More
}

/// How many of `entries`, the first of which is `first`, are each `step` more than the one before
/// and, behind the last offset that there is, nothing else.
#[inline(always)]
fn continued(entries: &[u8], first: u64, step: u64) -> usize {
    let mut expected = first;
    let continues = |entry: &&[u8]| {
        let is_within = (expected ^ first) & !entry::OFFSET == 0;
        let is_next = is_within && be64(entry) == expected;
        expected = expected.wrapping_add(step);
        is_next
    };
    entries.chunks_exact(8).take_while(continues).count()
}

/// The same for extended entries.
///
/// qemu looks at the entry behind a run before it answers about the run: if that entry is
/// invalid, the run is never answered. So a run is only appended when what follows it is known
/// to be sound.
fn extended(rules: &Rules, entries: &[u8], out: &mut Batch) -> Result<Flow> {
    let cluster = rules.cluster;
    let subcluster = cluster / u64::from(SUBCLUSTERS);
    let mut entries = Pairs { rest: entries };
    loop {
        if plain_extended(rules, &mut entries, out) == Flow::Stop {
            return Ok(Flow::Stop);
        }
        let Some((entry, bitmap)) = entries.peek() else {
            return Ok(Flow::More);
        };
        let inside = out.cursor() & (cluster - 1);
        let guest = out.cursor() - inside;
        rules.check_extended(entry, bitmap, guest)?;
        // Below 32.
        let index = u32::try_from(inside / subcluster).unwrap_or(0);
        let (status, run) = rules.subcluster(entry, bitmap, index, guest)?;
        // The run ends before subcluster `last` of the cluster `moved` bytes further on.
        let mut last = index + run;
        let mut moved = 0;
        while last == SUBCLUSTERS {
            last = 0;
            moved += cluster;
            entries.advance();
            let Some((entry, bitmap)) = entries.peek() else {
                break;
            };
            rules.check_extended(entry, bitmap, guest + moved)?;
            match rules.subcluster(entry, bitmap, 0, guest + moved) {
                Ok((next, run)) if next == status.advanced(moved) => last = run,
                _ => {}
            }
        }
        let length = moved + u64::from(last) * subcluster - inside;
        if out.push(length, status.advanced(inside)) == Flow::Stop {
            return Ok(Flow::Stop);
        }
    }
}

/// As [`plain`], for extended entries: appends for as long as entries are sound and raise no
/// further questions.
#[inline(never)]
fn plain_extended(rules: &Rules, entries: &mut Pairs<'_>, out: &mut Batch) -> Flow {
    let cluster = rules.cluster;
    let subcluster = cluster / u64::from(SUBCLUSTERS);
    let unusual = rules.unusual_extended();
    // Only of the first cluster a part may be in front of the cursor.
    let mut inside = out.cursor() & (cluster - 1);
    let start = out.cursor() - inside;
    let mut tail = out.tail();
    // The last run of a cluster waits for the entry behind it.
    let mut waiting = (0, Status::Absent);
    let mut pairs = Pairs { rest: entries.rest };
    let mut is_sound = true;
    while let Some((entry, bitmap)) = pairs.peek() {
        is_sound = entry & unusual == 0 && entry::is_consistent(entry, bitmap);
        if !is_sound {
            break;
        }
        pairs.advance();
        if tail.push(waiting.0, waiting.1) == Flow::Stop {
            return Flow::Stop;
        }
        // Below 32.
        let mut index = u32::try_from(inside / subcluster).unwrap_or(0);
        loop {
            let (status, run) = rules.plain_subcluster(entry, bitmap, index);
            index += run;
            let end = u64::from(index) * subcluster;
            waiting = (end - inside, status.advanced(inside));
            inside = end;
            if index == SUBCLUSTERS {
                break;
            }
            if tail.push(waiting.0, waiting.1) == Flow::Stop {
                return Flow::Stop;
            }
        }
        inside = 0;
    }
    if is_sound {
        *entries = pairs;
        return tail.push(waiting.0, waiting.1);
    }
    drop(tail);
    // What waits is looked at again, with what is behind it.
    entries.skip((out.cursor() - start) / cluster);
    Flow::More
}

/// Extended entries as pairs of entry and bitmap.
struct Pairs<'a> {
    rest: &'a [u8],
}

impl Pairs<'_> {
    fn peek(&self) -> Option<(u64, u64)> {
        let (entry, rest) = self.rest.split_first_chunk::<8>()?;
        let (bitmap, _) = rest.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*entry), u64::from_be_bytes(*bitmap)))
    }

    fn advance(&mut self) {
        self.rest = self.rest.get(16..).unwrap_or_default();
    }

    fn skip(&mut self, count: u64) {
        // At most those of a table.
        let bytes = usize::try_from(count * EXTENDED).unwrap_or(usize::MAX);
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

/// The integer in eight bytes.
#[inline]
fn be64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk))
}

/// The first cluster, or what there is of it, its last sector filled up; header and extensions
/// lie within.
fn read_first_cluster(storage: &dyn Storage) -> Result<Vec<u8>> {
    let failed = |error| instar_core::Error::io("cannot read the header", error).at(0);
    let mut start = vec![0; 512];
    read_padded(storage, 0, &mut start).map_err(failed)?;
    let bits = Fields::new("header", 0, &start).be32(disk::CLUSTER_BITS_AT)?;
    let cluster = if disk::CLUSTER_BITS.contains(&bits) { 1 << bits } else { 512 };
    // At most 2 MiB.
    let there = storage.len().next_multiple_of(SECTOR).min(cluster);
    let length = usize::try_from(there).unwrap_or(0);
    start.resize(length, 0);
    read_padded(storage, 0, &mut start).map_err(failed)?;
    Ok(start)
}

fn check_l1_is_inside(header: &Header, file: u64) -> Result<()> {
    let (offset, size) = (header.l1_offset, header.l1_entries * 8);
    let end = offset.checked_add(size);
    if end.is_none_or(|end| end > file.next_multiple_of(SECTOR)) && size != 0 {
        let error = Error::TableOutside { table: "L1 table", offset, size, file };
        return Err(instar_core::Error::from(error).at(40));
    }
    Ok(())
}

fn data_file(image: &Image<'_>, name: OsString) -> Result<ImageFile> {
    let reference = Reference { role: Role::DataFile, name };
    let opened = image.members(&[reference])?;
    opened.into_iter().next().ok_or_else(|| Error::NoDataFile.into())
}

fn backing(header: &Header, first_cluster: &[u8], format: Option<String>) -> Option<Backing> {
    let (offset, length) = header.backing_name?;
    let start = usize::try_from(offset).ok()?;
    // The room for the name is within the cluster; what the file lacks of it reads as zeros,
    // and a zero ends the name.
    let stored = first_cluster.get(start..).unwrap_or_default();
    let stored = stored.get(..length as usize).unwrap_or(stored);
    let name = until_zero(stored);
    (!name.is_empty()).then(|| Backing {
        role: Role::Backing,
        names: vec![OsString::from_vec(name.to_vec())],
        format,
        identifiers: Vec::new(),
    })
}
