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
