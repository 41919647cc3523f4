//! What the fuzz targets do. The laws are those of `instar::core::testkit`, so that what a target
//! finds can be looked at in a plain test.

use std::sync::LazyLock;

use instar::core::testkit::{
    Budget, Mutator, Random, check_chain, check_image, decode, encode, join, seal, split,
};
use instar::core::{ImageFormat, MemoryStorage, Registry, detect};

/// A mutant in so many is left to libFuzzer.
const LEFT_TO_LIBFUZZER: usize = 3;

/// An input in so many is also asked about in batches of other sizes and from other places.
const THOROUGH: u64 = 4;

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| instar::registry().expect("no name is claimed twice"));

/// The format that `INSTAR_FUZZ_FORMAT` names.
static FORMAT: LazyLock<&'static dyn ImageFormat> = LazyLock::new(|| {
    let name = std::env::var("INSTAR_FUZZ_FORMAT").expect("INSTAR_FUZZ_FORMAT names a format");
    REGISTRY.find(&name).expect("a format that is compiled in")
});

/// Cheaper than in tests: what matters is reached early.
const BUDGET: Budget = Budget { opening: 80 << 20, mapping: 8 << 20, rows: 5_000 };

/// Maps an image in the format that is detected for it.
pub fn map_any(bytes: &[u8]) {
    let (mut image, is_sealed) = decode(bytes);
    let Ok(format) = detect(&REGISTRY, &image).and_then(|found| found.winner()) else { return };
    if is_sealed {
        seal(format.name(), &mut image);
    }
    check_chain(&[image], BUDGET, |storage| detect(&REGISTRY, storage)?.winner());
}

/// Maps an image in the format that the environment names.
pub fn format(bytes: &[u8]) {
    let (mut image, is_sealed) = decode(bytes);
    if is_sealed {
        seal(FORMAT.name(), &mut image);
    }
    check_image(*FORMAT, &image, BUDGET, hash(bytes) % THOROUGH == 0);
}

/// Maps images as the layers of a chain, top first; at most five.
pub fn chain(bytes: &[u8]) {
    let layers: Vec<MemoryStorage> = split(bytes)
        .into_iter()
        .take(5)
        .map(|part| {
            let (mut image, is_sealed) = decode(part);
            let found = detect(&REGISTRY, &image).and_then(|found| found.winner());
            if let (true, Ok(format)) = (is_sealed, found) {
                seal(format.name(), &mut image);
            }
            image
        })
        .collect();
    check_chain(&layers, BUDGET, |storage| detect(&REGISTRY, storage)?.winner());
}

/// Reads a size, and checks it where another way to the same number is at hand.
pub fn cli_sizes(text: &str) {
    let parsed = instar::parse_size(text);
    if let Some(size) = parsed {
        assert!(i64::try_from(size).is_ok(), "{text:?} is {size}");
        assert_eq!(instar::parse_size(&size.to_string()), Some(size));
        assert_eq!(instar::parse_size(&format!("{size:#x}")), Some(size));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase();
    let letter = suffix.strip_suffix("ib").filter(|letter| *letter != "b").unwrap_or(&suffix);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && letter.len() <= 1 {
        let exponent = match letter {
            "" if suffix.is_empty() => Some(0),
            "" => None,
            letter => "bkmgtpe".find(letter),
        };
        let expected = exponent.and_then(|exponent| {
            let whole: u128 = digits.parse().ok()?;
            let size = whole.checked_mul(1 << (10 * exponent))?;
            i64::try_from(size).ok().map(i64::unsigned_abs)
        });
        assert_eq!(parsed, expected, "{text:?}");
    }
}

/// Opens a text as the descriptor of a VMDK disk.
pub fn descriptor(text: &[u8]) {
    let text = [b"# Disk DescriptorFile\n", text].concat();
    let vmdk = REGISTRY.find("vmdk").expect("vmdk is compiled in");
    check_image(vmdk, &MemoryStorage::from_bytes(text), BUDGET, true);
}

/// Alters the input in `bytes`, of which `size` are in use, by `alter` or as libFuzzer does, and
/// returns its new size.
pub fn mutate(
    alter: fn(&[u8], &mut Random) -> Vec<u8>,
    bytes: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
) -> usize {
    let mut random = Random::new(seed.into());
    if random.below(LEFT_TO_LIBFUZZER) != 0 {
        let altered = alter(bytes.get(..size).unwrap_or_default(), &mut random);
        if let Some(room) = bytes.get_mut(..altered.len()).filter(|room| room.len() <= max_size) {
            room.copy_from_slice(&altered);
            return altered.len();
        }
    }
    libfuzzer_sys::fuzzer_mutate(bytes, size, max_size)
}

/// Alters an image word by word.
pub fn alter_image(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let (mut image, mut is_sealed) = decode(bytes);
    Mutator::new(random.next()).mutate(&mut image);
    if random.below(32) == 0 {
        is_sealed = !is_sealed;
    }
    encode(&image, is_sealed)
}

/// Alters one layer of a chain, or puts a layer in another place.
pub fn alter_layer(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut layers: Vec<Vec<u8>> = split(bytes).into_iter().map(<[u8]>::to_vec).collect();
    if layers.is_empty() {
        layers.push(Vec::new());
    }
    let (one, other) = (random.below(layers.len()), random.below(layers.len()));
    match random.below(8) {
        0 => layers.swap(one, other),
        1 => layers.insert(one, layers[other].clone()),
        _ => layers[one] = alter_image(&layers[one], random),
    }
    join(&layers)
}

/// The same for the same bytes, so that an input always fares alike.
fn hash(bytes: &[u8]) -> u64 {
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold)
}
