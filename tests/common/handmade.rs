//! Random images of formats that qemu-img reads but does not create, made byte by byte.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::random::Choices;

/// An image and what is special about it.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) about: String,
}

/// A Bochs image with some of its extents stored, in any order, and some of their sectors in use.
pub(crate) fn bochs(choose: &mut Choices) -> Image {
    const NONE: u32 = u32::MAX;
    let version = choose.of(&[0x1_0000_u32, 0x2_0000]);
    let extent = 512_usize << choose.between(0, 8);
    let count = to_usize(choose.between(0, 40));
    let size = (extent * count) as u64 - choose.between(0, 700).min((extent * count) as u64);
    let entries = count + to_usize(choose.of(&[0, 0, 1, 100]));
    let bitmap = (extent / 512).div_ceil(8);
    let catalog_at = to_usize(choose.of(&[512, 512, 96, 4096]));

    let mut catalog: Vec<u32> =
        (0..entries).map(|_| if choose.one_in(2) { NONE } else { 0 }).collect();
    let mut numbers: Vec<u32> =
        (0..to_u32(catalog.iter().filter(|e| **e != NONE).count())).collect();
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, to_usize(choose.between(0, at as u64)));
    }
    let stored = numbers.len();
    let mut rest = numbers.into_iter();
    for entry in catalog.iter_mut().filter(|e| **e != NONE) {
        *entry = rest.next().expect("a number for each stored extent");
    }

    let mut bytes = Vec::new();
    put(&mut bytes, 0, b"Bochs Virtual HD Image");
    put(&mut bytes, 32, b"Redolog");
    put(&mut bytes, 48, b"Growing");
    for (at, value) in [
        (64, version),
        (68, to_u32(catalog_at)),
        (72, to_u32(entries)),
        (76, to_u32(bitmap)),
        (80, to_u32(extent)),
    ] {
        put(&mut bytes, at, &value.to_le_bytes());
    }
    put(&mut bytes, if version == 0x1_0000 { 84 } else { 88 }, &size.to_le_bytes());
    let table: Vec<u8> = catalog.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(&mut bytes, catalog_at, &table);
    bytes.resize(bytes.len().max(512), 0);
    for _ in 0..stored {
        let at = bytes.len();
        bytes.resize(at + bitmap.next_multiple_of(512), 0);
        for _ in 0..choose.between(0, 20) {
            let bit = to_usize(choose.between(0, (extent / 512 - 1) as u64));
            bytes[at + bit / 8] |= 1 << (bit % 8);
        }
        let fill = choose.between(1, 255).to_le_bytes()[0];
        bytes.resize(bytes.len() + extent, fill);
    }
    let about = format!(
        "version {version:#x}, {size} bytes, extents of {extent}, {stored} of {entries} stored"
    );
    Image { bytes, about }
}

/// A cloop image of random block size, its compressed blocks one behind the other or apart.
pub(crate) fn cloop(choose: &mut Choices) -> Image {
    let block = 512 * to_usize(choose.of(&[1, 2, 3, 8, 128, 129, 2048]));
    let count = to_usize(choose.between(0, 30));
    let gap = to_usize(choose.of(&[0, 0, 0, 1, 512]));
    let mut offsets = Vec::new();
    let mut data = Vec::new();
    let first = 136 + 8 * (count + 1);
    for _ in 0..count {
        offsets.push(first + data.len());
        data.extend(zlib(&content(block, choose)));
        data.resize(data.len() + gap, 0);
    }
    offsets.push(first + data.len());

    let mut bytes = Vec::new();
    let script = "#!/bin/sh\n#V2.0 Format\n\
                  modprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
    put(&mut bytes, 0, script.as_bytes());
    put(&mut bytes, 128, &to_u32(block).to_be_bytes());
    put(&mut bytes, 132, &to_u32(count).to_be_bytes());
    let table: Vec<u8> = offsets.iter().flat_map(|at| (*at as u64).to_be_bytes()).collect();
    put(&mut bytes, 136, &table);
    bytes.extend(data);
    Image { bytes, about: format!("{count} blocks of {block} bytes, {gap} bytes apart") }
}

/// A UDIF image of kinds of chunks that every qemu-img reads, without gaps, its tables in order.
pub(crate) fn dmg(choose: &mut Choices) -> Image {
    const KINDS: [u32; 6] = [0, 1, 1, 2, 0x8000_0005, 0x8000_0005];
    let front = to_usize(choose.of(&[0, 0, 7, 4096]));
    let align = to_usize(choose.of(&[1, 1, 512, 4096]));
    let mut fork = Vec::new();
    let mut tables = Vec::new();
    let mut sector = 0;
    let most = choose.of(&[3, 3, 30, 2000]);
    let mut count = 0;
    for _ in 0..choose.between(1, 4) {
        let base = choose.of(&[0, 0, 100]).min(fork.len() as u64);
        let mut table = Vec::new();
        put(&mut table, 0, b"mish\0\0\0\x01");
        put(&mut table, 8, &u64::to_be_bytes(sector));
        put(&mut table, 24, &base.to_be_bytes());
        let mut chunks = Vec::new();
        let mut inside = 0;
        let longest = if most > 100 { 2 } else { 70 };
        for _ in 0..choose.between(1, most) {
            let kind = choose.of(&KINDS);
            let sectors = choose.between(1, longest);
            let bytes = content(512 * to_usize(sectors), choose);
            let stored = match kind {
                1 => bytes,
                0x8000_0005 => zlib(&bytes),
                _ => Vec::new(),
            };
            fork.resize(fork.len().next_multiple_of(align), 0);
            let (at, length) = (fork.len() as u64 - base, stored.len() as u64);
            fork.extend(stored);
            chunks.push((kind, inside, sectors, at, length));
            inside += sectors;
            if choose.one_in(10) {
                chunks.push((0x7fff_fffe, inside, 0, 0, 0));
            }
        }
        chunks.push((0xffff_ffff, inside, 0, 0, 0));
        put(&mut table, 16, &inside.to_be_bytes());
        put(&mut table, 200, &to_u32(chunks.len()).to_be_bytes());
        for (kind, start, sectors, at, length) in &chunks {
            table.extend(kind.to_be_bytes());
            table.extend([0; 4]);
            for number in [start, sectors, at, length] {
                table.extend(number.to_be_bytes());
            }
        }
        count += chunks.len();
        sector += inside;
        tables.push(table);
    }
    let in_fork = choose.one_in(3);
    let resources = if in_fork { resource_fork(&tables) } else { property_list(&tables) };

    let mut bytes = vec![0x11; front];
    let length = fork.len() as u64;
    bytes.extend(fork);
    let at = bytes.len() as u64;
    let area = [at.to_be_bytes(), (resources.len() as u64).to_be_bytes()].concat();
    bytes.extend(resources);
    let end = bytes.len();
    put(&mut bytes, end, b"koly\0\0\0\x04\0\0\x02\0");
    put(&mut bytes, end + 24, &(front as u64).to_be_bytes());
    put(&mut bytes, end + 32, &length.to_be_bytes());
    put(&mut bytes, end + if in_fork { 40 } else { 216 }, &area);
    put(&mut bytes, end + 492, &sector.to_be_bytes());
    bytes.resize(end + 512, 0);
    let about = format!(
        "{sector} sectors in {count} chunks of {} tables, {}, data from {front} on, aligned to \
         {align}",
        tables.len(),
        if in_fork { "resource fork" } else { "property list" }
    );
    Image { bytes, about }
}

fn resource_fork(tables: &[Vec<u8>]) -> Vec<u8> {
    let length = |table: &Vec<u8>| to_u32(table.len()).to_be_bytes();
    let data: Vec<u8> =
        tables.iter().flat_map(|table| [&length(table)[..], table].concat()).collect();
    let mut fork = vec![0; 256];
    put(&mut fork, 0, &256_u32.to_be_bytes());
    put(&mut fork, 8, &to_u32(data.len()).to_be_bytes());
    fork.extend(data);
    fork
}

fn property_list(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut list = "<plist><dict><key>resource-fork</key><dict><key>blkx</key><array>\n".to_owned();
    for table in tables {
        list.push_str("<dict><key>Data</key><data>\n");
        for line in base64(table).as_bytes().chunks(52) {
            list.push('\t');
            list.push_str(&String::from_utf8_lossy(line));
            list.push('\n');
        }
        list.push_str("</data></dict>\n");
    }
    list.push_str("</array></dict></dict></plist>\n");
    list.into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).copied().map_or(0, usize::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_there = digit <= three.len();
            let value = DIGITS[bits >> (18 - 6 * digit) & 63];
            text.push(if is_there { char::from(value) } else { '=' });
        }
    }
    text
}

/// Zeros, a pattern, or bytes that do not compress.
fn content(length: usize, choose: &mut Choices) -> Vec<u8> {
    match choose.between(0, 3) {
        0 => vec![0; length],
        1 => (0..length).map(|_| choose.between(0, 255).to_le_bytes()[0]).collect(),
        _ => vec![choose.between(1, 255).to_le_bytes()[0]; length],
    }
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Puts `piece` at `at`, lengthening `bytes` if need be.
fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(piece);
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("a small number")
}
