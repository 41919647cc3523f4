//! Layers as one disk.

use super::*;
use crate::testkit::{ListSource, context, data};
use crate::{Flow, ImageFile, MemoryStorage, RowReader, Shape, Window};
use pretty_assertions::assert_eq;

fn layer(name: &str, list: &[(u64, Status)]) -> Layer {
    let storage = Arc::new(MemoryStorage::new(1 << 40));
    let source = ListSource::new(list.to_vec(), name, Some(storage));
    Layer::new(Box::new(source), Path::new(name), "list")
}

/// Rows as (start, length, depth, state, offset, file name).
fn rows(layers: Vec<Layer>, window: Window) -> Vec<(u64, u64, u32, &'static str, u64, String)> {
    let chain = Chain::new(layers, context()).unwrap();
    let mut reader = RowReader::new(chain, window, Shape::WithCompressed);
    let mut all = Vec::new();
    loop {
        let rows = reader.next_rows().unwrap().to_vec();
        if rows.is_empty() {
            return all;
        }
        for row in rows {
            let file = &reader.chain().files()[row.file as usize];
            let name = file.name.to_string();
            let name = if row.flags.has_offset() { name } else { String::new() };
            all.push((row.start, row.length, row.depth, row.flags.state(), row.offset, name));
        }
    }
}

fn whole(layers: Vec<Layer>) -> Vec<(u64, u64, u32, &'static str, u64, String)> {
    rows(layers, Window::default())
}

#[test]
fn absent_ranges_are_answered_by_the_layer_below() {
    let top = layer(
        "top",
        &[(100, Status::Absent), (100, data(500)), (200, Status::AbsentAt(Place::at(7)))],
    );
    let middle = layer("middle", &[(150, Status::Zero), (150, data(0)), (100, Status::Absent)]);
    let base = layer("base", &[(400, Status::ZeroAt(Place::at(0)))]);
    let row = |start, length, depth, state, offset, file: &str| {
        (start, length, depth, state, offset, file.to_owned())
    };
    assert_eq!(
        whole(vec![top, middle, base]),
        [
            row(0, 100, 1, "zero", 0, ""),
            row(100, 100, 0, "data", 500, "top"),
            row(200, 100, 1, "data", 50, "middle"),
            row(300, 100, 2, "zero-at", 300, "base"),
        ]
    );
}

#[test]
fn behind_the_end_of_a_shorter_layer_the_one_above_answers() {
    let top = layer("top", &[(1000, Status::Absent)]);
    let middle = layer("middle", &[(600, Status::AbsentAt(Place::at(9)))]);
    let base = layer("base", &[(200, data(0))]);
    let none = String::new();
    assert_eq!(
        whole(vec![top, middle, base]),
        [
            (0, 200, 2, "data", 0, "base".into()),
            (200, 400, 1, "absent-at", 209, "middle".into()),
            (600, 400, 0, "absent", 0, none),
        ]
    );
}

#[test]
fn a_longer_layer_below_is_cut() {
    let top = layer("top", &[(100, Status::Absent)]);
    let base = layer("base", &[(200, data(0))]);
    assert_eq!(whole(vec![top, base]), [(0, 100, 1, "data", 0, "base".into())]);
}

#[test]
fn windows_cut_rows_and_shift_their_offsets() {
    let window = |start, length| Window { start, length };
    let list = [(100, data(1000)), (100, Status::Zero), (100, data(2000))];
    let cut = |window| rows(vec![layer("x", &list)], window);
    let name = || "x".to_owned();
    assert_eq!(
        cut(window(50, Some(200))),
        [
            (50, 50, 0, "data", 1050, name()),
            (100, 100, 0, "zero", 0, String::new()),
            (200, 50, 0, "data", 2000, name()),
        ]
    );
    assert_eq!(cut(window(299, None)), [(299, 1, 0, "data", 2099, name())]);
    for empty in [window(300, None), window(7, Some(0)), window(1 << 62, Some(1))] {
        assert_eq!(cut(empty), [(empty.start, 0, 0, "none", 0, String::new())]);
    }
}

#[test]
fn many_layers_use_no_stack() {
    let mut layers: Vec<Layer> =
        (0..200).map(|i| layer(&i.to_string(), &[(1 << 20, Status::Absent)])).collect();
    layers.push(layer("base", &[(1 << 20, data(0))]));
    assert_eq!(whole(layers), [(0, 1 << 20, 200, "data", 0, "base".into())]);
    let deeper = (0..202).map(|i| layer(&i.to_string(), &[(1, Status::Absent)])).collect();
    let error = Chain::new(deeper, context()).err().unwrap();
    assert_eq!(error.to_string(), "the number of backing files is 201, at most 200 is allowed");
}

#[test]
fn holes_of_the_host_split_data_and_nothing_else() {
    let storage = Arc::new(MemoryStorage::new(1000).with_data(100, [1; 50]));
    let list = vec![
        (200, Status::DataOverHoles(Place::at(0))),
        (100, Status::Data(Place::at(200))),
        (2000, Status::DataOverHoles(Place::at(300))),
    ];
    let source = ListSource::new(list, "x", Some(storage));
    let layer = Layer::new(Box::new(source), Path::new("x"), "list");
    let name = || "x".to_owned();
    assert_eq!(
        whole(vec![layer]),
        [
            (0, 100, 0, "data-in-hole", 0, name()),
            (100, 50, 0, "data", 100, name()),
            (150, 50, 0, "data-in-hole", 150, name()),
            (200, 100, 0, "data", 200, name()),
            (300, 2000, 0, "data-in-hole", 300, name()),
        ]
    );
    // Nobody can tell of a file that was not opened.
    let unknown = ListSource::new(vec![(9, Status::DataOverHoles(Place::at(0)))], "y", None);
    let layer = Layer::new(Box::new(unknown), Path::new("y"), "list");
    assert_eq!(whole(vec![layer]), [(0, 9, 0, "data", 0, "y".into())]);
}

#[test]
fn more_rows_than_fit_at_once_come_whole_and_in_order() {
    let list: Vec<(u64, Status)> = (0..20_000)
        .map(|i| if i % 2 == 0 { (512, data(i * 1024)) } else { (512, Status::Absent) })
        .collect();
    let all = whole(vec![layer("x", &list)]);
    assert_eq!(all.len(), 20_000);
    for (i, row) in (0..).zip(&all) {
        assert_eq!((row.0, row.1), (i * 512, 512));
    }
}

/// Fails where its list ends, short of its size.
struct Failing(ListSource);

impl ExtentSource for Failing {
    fn virtual_size(&self) -> u64 {
        self.0.virtual_size() + 100
    }

    fn files(&self) -> &[ImageFile] {
        self.0.files()
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        self.0.extents(out)?;
        if out.cursor() >= self.0.virtual_size() && out.push(0, Status::Zero) == Flow::More {
            return Err(Error::new(ErrorKind::Corrupt, "bad entry"));
        }
        Ok(())
    }
}

fn failing(list: &[(u64, Status)]) -> Layer {
    let source = Failing(ListSource::new(list.to_vec(), "bad", None));
    Layer::new(Box::new(source), Path::new("bad"), "list")
}

#[test]
fn rows_before_an_error_are_given_but_for_the_last() {
    let list = [(100, data(0)), (100, Status::Zero), (100, data(0))];
    let chain = Chain::new(vec![failing(&list)], context()).unwrap();
    let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
    assert_eq!(reader.next_rows().unwrap().len(), 2);
    let error = reader.next_rows().unwrap_err();
    assert_eq!(error.to_string(), "list: bad entry");
    assert_eq!(error.path(), Some(Path::new("bad")));
    assert_eq!(reader.next_rows().unwrap(), []);
}

#[test]
fn an_error_behind_data_of_the_layer_above_is_never_met() {
    let top = layer("top", &[(250, Status::Absent), (150, data(0))]);
    let all = whole(vec![top, failing(&[(300, Status::Zero)])]);
    assert_eq!(all.len(), 2);
}

#[test]
fn data_past_the_end_of_its_file_is_noticed() {
    let strict =
        Arc::new(Context { notices: crate::Notices::new(true, |_| {}), ..Context::default() });
    let storage = Arc::new(MemoryStorage::new(1000));
    let map = |length| {
        let source = ListSource::new(vec![(length, data(512))], "x", Some(storage.clone()));
        let layer = Layer::new(Box::new(source), Path::new("x"), "list");
        let chain = Chain::new(vec![layer], Arc::clone(&strict)).unwrap();
        let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
        reader.next_rows().map(<[Row]>::len).map_err(|error| error.to_string())
    };
    // The last sector is filled up.
    assert_eq!(map(512), Ok(1));
    assert!(map(513).unwrap_err().contains("data past the end of x"));
}

/// A list whose image takes space in units of so many bytes.
struct InUnits(ListSource, u64);

impl ExtentSource for InUnits {
    fn virtual_size(&self) -> u64 {
        self.0.virtual_size()
    }

    fn files(&self) -> &[ImageFile] {
        self.0.files()
    }

    fn allocation_unit(&self) -> u64 {
        self.1
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        self.0.extents(out)
    }
}

/// A file of 1000 bytes, which end within a unit: what has no data may go on to the unit's end.
#[test]
fn space_past_the_last_unit_of_its_file_is_noticed() {
    let strict =
        Arc::new(Context { notices: crate::Notices::new(true, |_| {}), ..Context::default() });
    let storage = Arc::new(MemoryStorage::new(1000));
    let map = |unit, length, status, is_over_a_base| {
        let list = ListSource::new(vec![(length, status)], "x", Some(storage.clone()));
        let mut layers = vec![Layer::new(Box::new(InUnits(list, unit)), Path::new("x"), "list")];
        if is_over_a_base {
            // Of no length, so that it is asked and the layer above it answers.
            layers.push(layer("base", &[]));
        }
        let chain = Chain::new(layers, Arc::clone(&strict)).unwrap();
        let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
        reader.next_rows().map(<[Row]>::len).map_err(|error| error.to_string())
    };
    let (zero, absent) = (Status::ZeroAt(Place::at(512)), Status::AbsentAt(Place::at(512)));
    for (status, what) in [(zero, "space of zeros"), (absent, "space of unallocated data")] {
        for (unit, most) in [(512, 512), (4096, 3584), (0, 512)] {
            for is_over_a_base in [false, true] {
                assert_eq!(map(unit, most, status, is_over_a_base), Ok(1), "{what} {unit}");
                let text = format!(
                    "list: {what} past the end of x: {:#x} bytes at 0x200, but the file ends at \
                     0x400",
                    most + 1
                );
                assert_eq!(map(unit, most + 1, status, is_over_a_base), Err(text));
            }
        }
    }
    // Of data, every byte has to be there.
    assert_eq!(map(4096, 512, data(512), false), Ok(1));
    assert!(map(4096, 513, data(512), false).unwrap_err().contains("data past the end of x"));
    // Near 2^64 nothing wraps.
    let far = Status::ZeroAt(Place::at(u64::MAX - 100));
    assert!(map(4096, 512, far, false).unwrap_err().contains("space of zeros past the end of x"));
}

/// Once, what a reader had asked when it failed was taken for what the next one had to ask.
#[test]
fn a_second_reader_starts_at_the_top_again() {
    let top = layer("top", &[(100, data(0)), (200, Status::Absent), (100, data(500))]);
    let base = failing(&[(150, Status::Zero)]);
    let mut chain = Chain::new(vec![top, base], context()).unwrap();
    let expected = Row {
        start: 0,
        length: 100,
        offset: 0,
        file: 0,
        depth: 0,
        flags: crate::Flags::of(data(0)),
    };
    for _ in 0..2 {
        let mut reader = RowReader::new(&mut chain, Window::default(), Shape::WithCompressed);
        assert_eq!(reader.next_rows().unwrap(), [expected]);
        assert!(reader.next_rows().is_err());
    }
}

#[test]
fn a_second_reader_keeps_to_its_own_window() {
    let list: Vec<_> = (0..10_000).map(|i| (1, data(i * 2))).collect();
    let layers = vec![layer("top", &[(10_000, Status::Absent)]), layer("base", &list)];
    let mut chain = Chain::new(layers, context()).unwrap();
    let mut first = RowReader::new(&mut chain, Window::default(), Shape::WithCompressed);
    assert!(first.next_rows().unwrap().len() > 1000);
    let window = Window { start: chain.reached, length: Some(2) };
    let mut second = RowReader::new(&mut chain, window, Shape::WithCompressed);
    assert_eq!(second.next_rows().unwrap().iter().map(|row| row.length).sum::<u64>(), 2);
    assert_eq!(second.next_rows().unwrap(), []);
}

#[test]
fn a_place_without_a_file_is_an_error() {
    struct NoFiles;

    impl ExtentSource for NoFiles {
        fn virtual_size(&self) -> u64 {
            10
        }

        fn files(&self) -> &[ImageFile] {
            &[]
        }

        fn extents(&mut self, out: &mut Batch) -> Result<()> {
            let _: Flow = out.push(5, Status::Absent);
            let _: Flow = out.push(5, Status::ZeroAt(Place::at(0)));
            Ok(())
        }
    }

    let layer = Layer::new(Box::new(NoFiles), Path::new("x"), "none");
    let chain = Chain::new(vec![layer], context()).unwrap();
    let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
    let error = reader.next_rows().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bug);
}

/// A source that appends its list and then fails, at a guest offset.
struct FailsFrom {
    list: ListSource,
    fails_from: u64,
    kind: ErrorKind,
}

impl ExtentSource for FailsFrom {
    fn virtual_size(&self) -> u64 {
        self.list.virtual_size()
    }

    fn files(&self) -> &[ImageFile] {
        self.list.files()
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let mut part = Batch::default();
        part.ask(out.cursor(), out.end().min(self.fails_from).max(out.cursor()));
        if part.end() > part.start() {
            self.list.extents(&mut part)?;
        }
        for extent in part.extents() {
            let _: Flow = out.push(extent.length, extent.status());
        }
        match out.end() >= self.fails_from {
            true => Err(Error::new(self.kind, "a fault on purpose")),
            false => Ok(()),
        }
    }
}

/// How many bytes are in the rows that came before the error, and the error.
fn until_error(layers: Vec<Layer>) -> (u64, Option<String>) {
    let chain = Chain::new(layers, context()).unwrap();
    let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
    let mut bytes = 0;
    loop {
        match reader.next_rows() {
            Ok([]) => return (bytes, None),
            Ok(rows) => bytes += rows.iter().map(|row| row.length).sum::<u64>(),
            Err(error) => {
                assert!(reader.next_rows().unwrap().is_empty(), "nothing follows an error");
                return (bytes, Some(error.to_string()));
            }
        }
    }
}

#[test]
fn an_error_counts_unless_it_is_about_what_a_layer_above_decides() {
    let failing = |fails_from, kind| {
        let storage = Arc::new(MemoryStorage::new(1 << 40));
        let list = vec![(100, data(0)), (100, Status::Zero), (100, data(500))];
        let list = ListSource::new(list, "base", Some(storage));
        let source = FailsFrom { list, fails_from, kind };
        Layer::new(Box::new(source), Path::new("base"), "list")
    };
    let error = Some("list: a fault on purpose".to_owned());
    let corrupt = ErrorKind::Corrupt;
    // Alone: after the last byte too, when all rows are out.
    assert_eq!(until_error(vec![failing(200, corrupt)]), (100, error.clone()));
    assert_eq!(until_error(vec![failing(300, corrupt)]), (300, error.clone()));
    // What is asked of the layer below ends with it, and so does the map, or what is above.
    for top in [300, 400] {
        let top = layer("top", &[(top, Status::Absent)]);
        let size = top.size;
        assert_eq!(until_error(vec![top, failing(300, corrupt)]), (size, error.clone()));
    }
    // The layer above decides where it fails, so nobody needs the answer; a warning that was made an
    // error counts all the same.
    let above = || layer("top", &[(150, Status::Absent), (150, data(0))]);
    assert_eq!(until_error(vec![above(), failing(200, corrupt)]), (300, None));
    assert_eq!(until_error(vec![above(), failing(200, ErrorKind::Strict)]), (300, error));
}

#[test]
fn a_warning_that_is_an_error_is_not_lost_by_who_ignores_it() {
    struct Careless(ListSource, Arc<Context>);

    impl ExtentSource for Careless {
        fn virtual_size(&self) -> u64 {
            self.0.virtual_size()
        }

        fn files(&self) -> &[ImageFile] {
            self.0.files()
        }

        fn extents(&mut self, out: &mut Batch) -> Result<()> {
            let _ = self.1.notices.warn("odd");
            self.0.extents(out)
        }
    }

    for (context, expected) in [(context(), None), (crate::testkit::strict(), Some("odd"))] {
        let list = ListSource::new(vec![(100, Status::Zero)], "file", None);
        let source = Box::new(Careless(list, Arc::clone(&context)));
        let chain = Chain::new(vec![Layer::new(source, Path::new("image"), "list")], context);
        let mut reader = RowReader::new(chain.unwrap(), Window::default(), Shape::WithCompressed);
        assert_eq!(reader.next_rows().unwrap().len(), 1);
        let error = reader.next_rows().err().map(|error| (error.kind(), error.to_string()));
        assert_eq!(error, expected.map(|text| (ErrorKind::Strict, text.to_owned())));
    }
}
