//! Property lists: written in other ways, wrong, large, and next to a resource fork.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use instar_core::testkit::{data, extents, open, probe};
use instar_core::{Batch, Confidence, ErrorKind, MemoryStorage, Status};
use pretty_assertions::assert_eq;

use super::{S, map, map_bytes, refusal};
use crate::Dmg;
use crate::samples::{Disk, END, Kept, RAW, Table, ZERO, fork_without_tables, long, mixed, put};

/// An image of 100 sectors with this property list at 65536.
fn with_list(list: &[u8]) -> Vec<u8> {
    with_fork_and_list(&[], list)
}

/// With a resource fork at 65536, and this list after it.
fn with_fork_and_list(fork: &[u8], list: &[u8]) -> Vec<u8> {
    let empty = Disk { kept: Kept::Nowhere, ..Disk::new(100, &[]) }.bytes();
    let (data, trailer) = empty.split_at(65536);
    let mut bytes = [data, fork, list, trailer].concat();
    let at = bytes.len() - 512;
    let area =
        |start: usize, length: usize| [start as u64, length as u64].map(u64::to_be_bytes).concat();
    put(&mut bytes, at + 40, &area(65536, fork.len()));
    put(&mut bytes, at + 216, &area(65536 + fork.len(), list.len()));
    bytes
}

/// A list with this content of the `data` element of its table.
fn list_of(content: &str) -> String {
    format!(
        "<plist><dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Data</key>\
         <data>{content}</data></dict></array></dict></dict></plist>"
    )
}

fn table() -> Table {
    Table::new(0, &[(RAW, 0, 1, 0, 512), (ZERO, 1, 99, 0, 0), (END, 100, 0, 0, 0)])
}

/// That table as base64, and its map.
fn text() -> String {
    STANDARD.encode(table().bytes())
}

const MAP: [(u64, Status); 2] =
    [(S, Status::Data(instar_core::Place::at(0))), (99 * S, Status::Zero)];

#[test]
fn the_list_counts_if_the_fork_has_no_table() {
    let list = list_of(&text()).into_bytes();
    let bytes = with_fork_and_list(&fork_without_tables(), &list);
    assert_eq!(probe(&Dmg, &MemoryStorage::from_bytes(bytes.clone())), Confidence::Verified);
    assert_eq!(map_bytes(bytes), MAP);
    // In the other order in the file.
    assert_eq!(map(&Disk { kept: Kept::ListAndFork, ..mixed() }), map(&mixed()));
    // Neither.
    assert_eq!(
        refusal(with_fork_and_list(&fork_without_tables(), b"<plist/>")),
        (ErrorKind::Corrupt, "dmg: no block table has a chunk".to_owned())
    );
    assert_eq!(
        refusal(with_fork_and_list(&fork_without_tables(), b"")),
        (ErrorKind::Corrupt, "dmg: no block table has a chunk".to_owned())
    );
    // A fork that is wrong is an error, whatever the list says.
    let mut wrong = fork_without_tables();
    put(&mut wrong, 256, &[1]);
    let (kind, text) = refusal(with_fork_and_list(&wrong, &list));
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(text.starts_with("dmg: resource of 16777227 bytes runs past the end"), "{text}");
}

#[test]
fn tables_of_the_fork_count_before_those_of_the_list() {
    let fork = |table: Table| {
        let disk = Disk { kept: Kept::Fork, ..Disk::new(100, &[table]) }.bytes();
        disk[65536..disk.len() - 512].to_vec()
    };
    let list = list_of(&text()).into_bytes();
    let other = Table::new(0, &[(ZERO, 0, 100, 0, 0)]);
    assert_eq!(map_bytes(with_fork_and_list(&fork(other), &list)), [(100 * S, Status::Zero)]);
    // The list is not even read.
    let other = Table::new(0, &[(ZERO, 0, 100, 0, 0)]);
    assert_eq!(map_bytes(with_fork_and_list(&fork(other), b"<")), [(100 * S, Status::Zero)]);
    // A table without a chunk is none.
    assert_eq!(map_bytes(with_fork_and_list(&fork(Table::new(0, &[])), &list)), MAP);
}

#[test]
fn a_list_may_be_written_in_any_way_that_xml_allows() {
    assert_eq!(map(&Disk { kept: Kept::OtherList, ..mixed() }), map(&mixed()));
    let text = text();
    let plain = list_of(&text);
    for list in [
        plain.clone(),
        plain.replace("><", ">\r\n\t<"),
        format!("\u{feff}{plain}"),
        plain.replace("><", " >text<!-- > -- <data> --><?a b?><"),
        plain.replace("<data>", "<data a='>' b=\"</data>\"\n>").replace("</data>", "</data >"),
        plain.replace("<dict>", "<dict><key>a</key><dict><key>Data</key><data>!</data></dict>"),
        plain.replace("<key>blkx", "<key>plst</key><array/><key>blkx"),
        plain.replace("blkx", "&#98;lk&#x78;"),
        plain.replace("blkx", "b<![CDATA[lk]]>x<!-- -->"),
        format!("\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>{plain}"),
        format!(
            "<!DOCTYPE plist PUBLIC \"-//A//B\" \"http://c/d.dtd\" [<!ENTITY e \"f\">]>{plain}"
        ),
        format!("{plain} after it \0\0 </dict> <data> & <"),
        list_of(&format!("<![CDATA[{text}]]>")),
        list_of(&format!(
            "<!-- -->\n<![CDATA[]]>{}<?x?>",
            text.replace('A', "&#65;<![CDATA[\n]]>")
        )),
        list_of(&text.replace("bWlz", "&#13;\n&#x62;W<!--bWlz-->lz")),
        list_of(&text.chars().flat_map(|digit| [digit, '\n']).collect::<String>()),
    ] {
        assert_eq!(map_bytes(with_list(list.as_bytes())), MAP, "{list:.90}");
    }
}

#[test]
fn each_refusal_of_a_list_names_what_is_wrong_and_where() {
    use ErrorKind::{Corrupt, Limit, Unsupported};
    let text = text();
    let plain = list_of(&text);
    let utf16 =
        |order: fn(u16) -> [u8; 2]| plain.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let long = "x".repeat(64 << 10);
    let bytes = |text: &str| text.as_bytes().to_vec();
    let inside = plain.find("bWlz").unwrap();
    // The offset counts from the list's start.
    for (list, kind, text, at) in [
        (utf16(u16::to_le_bytes), Unsupported, "is in UTF-16, only XML in UTF-8 is supported", 0),
        (utf16(u16::to_be_bytes), Unsupported, "is in UTF-16, only XML in UTF-8 is supported", 0),
        (
            [&[0xff, 0xfe], utf16(u16::to_le_bytes).as_slice()].concat(),
            Unsupported,
            "is in UTF-16, only XML in UTF-8 is supported",
            0,
        ),
        (
            [&[0xfe, 0xff], utf16(u16::to_be_bytes).as_slice()].concat(),
            Unsupported,
            "is in UTF-16, only XML in UTF-8 is supported",
            0,
        ),
        (bytes("bplist00\u{1}"), Unsupported, "is a binary one, only XML in UTF-8 is supported", 0),
        (bytes("<plist><dict>"), Corrupt, "ends before its elements do", 13),
        (bytes("<plist></dict>"), Corrupt, END_TAG, 7),
        (bytes("</plist>"), Corrupt, END_TAG, 0),
        (bytes("<plist><a></ab></a></plist>"), Corrupt, END_TAG, 10),
        (bytes("<plist><ab></a></ab></plist>"), Corrupt, END_TAG, 11),
        (bytes(&plain.replace("</data>", "")), Corrupt, END_TAG, inside + text.len()),
        (
            bytes(&list_of(&format!("{text}<data>"))),
            Corrupt,
            "has an element inside the data of a block table",
            inside + text.len(),
        ),
        (
            bytes(&list_of(&format!("{text}<a/>"))),
            Corrupt,
            "has an element inside the data of a block table",
            inside + text.len(),
        ),
        (bytes(&plain[..inside + 8]), Corrupt, "ends before its elements do", inside + 8),
        (bytes(&plain[..inside + 300]), Corrupt, "ends before its elements do", inside + 300),
        (
            bytes(&format!("<plist>{}", "<a>".repeat(4092))),
            Limit,
            "nests too deep: open elements have names of more than 4096 bytes",
            7 + 3 * 4091,
        ),
        (
            bytes(&format!("<plist><a b='{long}'/></plist>")),
            Limit,
            "has a tag, comment or instruction of more than 65536 bytes",
            7,
        ),
        (
            bytes(&format!("<plist><!--{long}--></plist>")),
            Limit,
            "has a tag, comment or instruction of more than 65536 bytes",
            7,
        ),
        (
            bytes("<plist><a b='x></plist>"),
            Corrupt,
            "is not well-formed: syntax error: attribute value not closed: `'` not found before \
             end of input",
            7,
        ),
        (
            bytes("<plist><!x></plist>"),
            Corrupt,
            "is not well-formed: syntax error: unknown or missed symbol in markup",
            7,
        ),
        (
            bytes("<plist>&a<b/></plist>"),
            Corrupt,
            "is not well-formed: ill-formed document: entity or character reference not closed: \
             `;` not found before end of input",
            7,
        ),
        (
            bytes(&list_of(&format!("<![CDATA[{text}]]"))),
            Corrupt,
            "is not well-formed: syntax error: CDATA not closed: `]]>` not found before end of \
             input",
            // Where two bytes are left.
            plain.len() + 9,
        ),
    ] {
        let at = 65536 + at;
        let shown = String::from_utf8_lossy(&list[..list.len().min(90)]).into_owned();
        assert_eq!(
            refusal(with_list(&list)),
            (kind, format!("dmg: property list {text} (at file offset {at:#x})")),
            "{shown}"
        );
    }
    for wrong in ["&a;", "&quot;", "&#xd800;", "&#233;", "&#0;", "=", "\u{e9}", "==AA"] {
        let list = list_of(&format!("{}{wrong}{}", &text[..300], &text[300..]));
        let (kind, text) = refusal(with_list(list.as_bytes()));
        assert_eq!(kind, Corrupt, "{wrong}");
        assert!(text.starts_with("dmg: a block table is no valid base64 (at file"), "{text}");
    }
}

const END_TAG: &str = "has an end tag that is not that of the innermost open element";

#[test]
fn what_is_within_the_limits_of_a_list_is_read() {
    let text = text();
    let plain = list_of(&text);
    let deep = format!("<a>{}{}</a>", "<a>".repeat(4080), "</a>".repeat(4080));
    let fitting = (64 << 10) - "<!---->".len();
    for list in [
        plain.replace("<key>blkx", &format!("{deep}<key>blkx")),
        plain.replace("<key>blkx", &format!("<!--{}--><key>blkx", "x".repeat(fitting))),
        plain.replace("<key>blkx", &format!("<a b='{}'/><key>blkx", "x".repeat(fitting - 2))),
        plain.replace("<key>blkx", &format!("<a>{}</a><key>blkx", "x".repeat(1 << 20))),
        list_of(&format!("{text}{}", " ".repeat(1 << 20))),
        list_of(&format!("{}<![CDATA[{text}]]>", "<![CDATA[ ]]>".repeat(20_000))),
    ] {
        assert_eq!(map_bytes(with_list(list.as_bytes())), MAP, "{list:.90}");
    }
}

#[test]
fn tokens_may_lie_across_the_windows_that_are_read() {
    // Windows are 64 KiB of the file, and the list starts at one.
    let table = Table::new(0, &[(ZERO, 0, 1, 0, 0)]);
    let tokens = "<a b='c'/><!--d--><key>&amp;e<![CDATA[f]]>&#65;</key><?g?>";
    for length in (64 << 10) - 600..64 << 10 {
        let prologue = format!("{}{tokens}", "x".repeat(length));
        let disk = Disk { data: 0, prologue, ..Disk::new(1, std::slice::from_ref(&table)) };
        assert_eq!(map(&disk), [(S, Status::Zero)], "{length}");
    }
}

#[test]
fn tables_of_many_windows_in_other_ways() {
    let table = long(5000).tables.remove(0);
    let expected = map(&long(5000));
    let text = STANDARD.encode(table.bytes());
    let lines = |end: &str| {
        let lines = text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line));
        lines.map(|line| format!("{line}{end}")).collect::<String>()
    };
    for content in [
        text.clone(),
        lines("&#13;\n"),
        lines("<!-- -->"),
        lines("]]>\n<![CDATA[").replacen("", "<![CDATA[", 1) + "]]>",
        format!("<![CDATA[{}]]>", lines("\n")),
    ] {
        let mut bytes = with_list(list_of(&content).as_bytes());
        let at = bytes.len() - 512;
        put(&mut bytes, at + 492, &5000_u64.to_be_bytes());
        let mut source = open(&Dmg, MemoryStorage::from_bytes(bytes)).unwrap();
        assert_eq!(extents(source.as_mut()).unwrap(), expected, "{content:.90}");
        // In constant memory.
        assert!(source.buffered() < 512 << 10, "{}", source.buffered());
        // From within each window, the last one first.
        for from in [4999, 3276, 3275, 1639, 1638, 1637, 1] {
            let mut batch = Batch::with_capacity(1);
            batch.ask(from * S, 5000 * S);
            source.extents(&mut batch).unwrap();
            let status = if from % 2 == 0 { Status::Compressed } else { data(from % 100 * 600) };
            assert_eq!(batch.extents()[0].status(), status, "{from}");
        }
    }
    assert_eq!(expected[1], (S, data(600)));
}

/// Tokens are counted when a list is opened, and not again when it is mapped.
#[test]
fn a_list_of_many_tokens_can_be_mapped() {
    let table = long(80_000).tables.remove(0);
    let text = STANDARD.encode(table.bytes());
    // More than half of those that are allowed.
    assert!(text.len() > 4 << 20, "{}", text.len());
    let mut content = String::new();
    for digit in text.bytes() {
        content.push_str("&#");
        content.push_str(&digit.to_string());
        content.push(';');
    }
    let mut bytes = with_list(list_of(&content).as_bytes());
    let at = bytes.len() - 512;
    put(&mut bytes, at + 492, &80_000_u64.to_be_bytes());
    assert_eq!(map_bytes(bytes).len(), 80_000);
}
