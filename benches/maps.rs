//! How long each step of a map takes: `cargo bench --bench maps`.
//!
//! - `classify`: the walk over the tables of one layer, through the trait object
//! - `rows`: the same and the rows of the chain
//! - `render`: rows into the bytes of each output
//!
//! The figures are per entry (`classify`, `rows`) and per row (`render`).

// The renderers are private to the root package, and stay so: compiled here once more, with tests
// that have nobody to run them.
#[allow(dead_code, unused_imports)]
#[path = "../src/render/mod.rs"]
mod render;
#[path = "tools/samples.rs"]
mod samples;

use std::io;
use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use instar_core::{
    Batch, Chain, Context, ExtentSource, Flags, Image, Layer, Location, Place, Row, RowReader,
    Shape, Status, Window, open_layer,
};
use render::{Human, Json, JsonLines, Renderer};
use samples::Sample;

fn main() {
    divan::main();
}

fn open(sample: &Sample) -> Box<dyn ExtentSource> {
    let registry = instar::registry().expect("no two formats of one name");
    let format = registry.find(sample.format).expect("all formats are there");
    let image = Image {
        storage: Arc::clone(&sample.storage),
        location: &Location::new(Path::new("image")),
        context: &Arc::new(Context::default()),
    };
    open_layer(format, image).expect("the sample opens")
}

fn chain(sample: &Sample) -> Chain {
    let layer = Layer::new(open(sample), Path::new("image"), sample.format);
    Chain::new(vec![layer], Arc::new(Context::default())).expect("one layer is enough")
}

/// The number of extents of the whole disk.
fn classify(source: &mut dyn ExtentSource, batch: &mut Batch) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < source.virtual_size() {
        batch.ask(at, source.virtual_size());
        source.extents(batch).expect("the sample maps");
        at = batch.cursor();
        count += batch.extents().len();
    }
    count
}

fn entries(name: &str) -> ItemsCount {
    ItemsCount::new(match name {
        "raw-frag" => 2 * samples::RAW_PIECES,
        "vhd-frag" => samples::UNITS / 2,
        "qcow2-extended" => samples::UNITS * 32,
        _ => samples::UNITS,
    })
}

#[divan::bench(name = "classify", args = Sample::NAMES, sample_count = 20)]
fn bench_classify(bencher: Bencher<'_, '_>, name: &str) {
    let mut source = open(&Sample::named(name));
    let mut batch = Batch::default();
    let contiguous = name.ends_with("contig");
    assert_eq!(classify(source.as_mut(), &mut batch) < 10, contiguous, "{name}");
    bencher.counter(entries(name)).bench_local(|| classify(source.as_mut(), &mut batch));
}

#[divan::bench(name = "rows", args = Sample::NAMES, sample_count = 20)]
fn bench_rows(bencher: Bencher<'_, '_>, name: &str) {
    let sample = Sample::named(name);
    let reader = || RowReader::new(chain(&sample), Window::default(), Shape::WithCompressed);
    bencher.counter(entries(name)).with_inputs(reader).bench_local_refs(|reader| {
        let mut count = 0;
        loop {
            match reader.next_rows().expect("the sample maps").len() {
                0 => break count,
                more => count += more,
            }
        }
    });
}

/// Rows as a large disk has them: every other cluster is data.
fn rows() -> Vec<Row> {
    let length = 64 << 10;
    let row = |index: u64| {
        let start = (1 << 39) + index * length;
        let status = match index % 2 {
            0 => Status::Data(Place::at(start / 2)),
            _ => Status::Absent,
        };
        let offset = status.place().map_or(0, |place| place.offset);
        Row { start, length, offset, file: 0, depth: 0, flags: Flags::of(status) }
    };
    (0..samples::UNITS).map(row).collect()
}

#[divan::bench(name = "render", args = ["json", "json-before-6.1", "jsonl", "human"])]
fn bench_render(bencher: Bencher<'_, '_>, output: &str) {
    let rows = rows();
    let chain = chain(&Sample::named("qcow2-contig"));
    let files = chain.files();
    let renderer = || -> Box<dyn Renderer> {
        match output {
            "json" => Box::new(Json::new(io::sink(), Shape::WithCompressed)),
            "json-before-6.1" => Box::new(Json::new(io::sink(), Shape::WithoutPresent)),
            "jsonl" => {
                let lines = JsonLines::new(io::sink(), &chain, false);
                Box::new(lines.expect("the sink takes everything"))
            }
            _ => Box::new(Human::new(io::sink(), files, false)),
        }
    };
    bencher.counter(ItemsCount::new(rows.len())).with_inputs(renderer).bench_local_values(
        |mut renderer| {
            renderer.rows(&rows).expect("every row of data has a place");
            renderer.finish().expect("the sink takes everything");
        },
    );
}
