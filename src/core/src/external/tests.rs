//! What is refused, ignored and followed.

use super::*;
use pretty_assertions::assert_eq;

fn extents(names: &[&str]) -> Vec<Reference> {
    names.iter().map(|name| Reference { role: Role::Extent, name: name.into() }).collect()
}

fn follow(allow_under: &[&Path]) -> Opener {
    let allow_under = allow_under.iter().map(|path| path.to_path_buf()).collect();
    Opener::new(ExternalPolicy::Follow { allow_under }).unwrap()
}

fn outcome(
    opener: &Opener,
    image: &Path,
    name: &str,
) -> std::result::Result<PathBuf, (String, Option<Advice>)> {
    let files = opener.members(&Location::new(image), &extents(&[name]));
    let said = |error: Error| (error.to_string(), error.advice());
    files.map(|files| files[0].name.to_path()).map_err(said)
}

#[test]
fn refusing_names_every_reference() {
    let opener = Opener::default();
    let image = Location::new(Path::new(".//dir/x.vmdk"));
    let error = opener.members(&image, &extents(&["a\n.vmdk", "b.vmdk"])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::External);
    assert_eq!(
        error.to_string(),
        "the image names another file (extent file \"a\\n.vmdk\", \"b.vmdk\"), which is not \
         opened"
    );
    assert_eq!(error.advice(), Some(Advice::ChooseExternalPolicy));
    let many: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = opener.members(&image, &extents(&many)).err().unwrap();
    assert!(error.to_string().contains("\"7\" and 2 more"));
    assert!(opener.members(&image, &[]).unwrap().is_empty());
}

#[test]
fn ignoring_opens_nothing_and_names_files_beside_the_image() {
    let opener = Opener::new(ExternalPolicy::Ignore).unwrap();
    for (image, name, path) in
        [(".//dir/x.vmdk", "../a", ".//dir/../a"), ("x.vmdk", "a", "a"), ("dir/x.vmdk", "/a", "/a")]
    {
        let files = opener.members(&Location::new(Path::new(image)), &extents(&[name]));
        let files = files.unwrap();
        assert!(files[0].storage.is_none());
        assert_eq!(files[0].name.to_string(), path);
    }
}

#[test]
fn following_stays_below_the_directories() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    std::fs::create_dir_all(at("vm/sub")).unwrap();
    std::fs::create_dir(at("other")).unwrap();
    for file in ["vm/base", "vm/sub/deep", "other/secret"] {
        std::fs::write(at(file), b"x").unwrap();
    }
    std::os::unix::fs::symlink("sub/deep", at("vm/inside")).unwrap();
    std::os::unix::fs::symlink("../other/secret", at("vm/escape")).unwrap();
    std::os::unix::fs::symlink(at("vm/sub"), at("vm/absolute")).unwrap();
    let image = at("vm/top.qcow2");

    let opener = follow(&[]);
    let absolute = at("vm/base");
    for name in ["base", "sub/deep", "sub/../base", "inside", "absolute/deep", "./base"] {
        assert_eq!(outcome(&opener, &image, name), Ok(at("vm").join(name)), "{name}");
    }
    assert_eq!(outcome(&opener, &image, absolute.to_str().unwrap()), Ok(absolute));
    for name in ["../other/secret", "escape", "/etc/passwd", "sub/../../other/secret"] {
        let (error, advice) = outcome(&opener, &image, name).unwrap_err();
        assert_eq!(advice, Some(Advice::AllowDirectory), "{name}: {error}");
        assert!(error.contains("is not below the image's directory"), "{name}: {error}");
        assert!(error.contains(name), "{name}: {error}");
    }
    let wider = follow(&[&at("other")]);
    for name in ["../other/secret", "escape"] {
        assert!(outcome(&wider, &image, name).is_ok(), "{name}");
    }
    assert!(outcome(&wider, &image, "/etc/passwd").is_err());
}

#[test]
fn a_file_is_opened_once_however_often_it_is_named() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    std::fs::write(at("file"), b"x").unwrap();
    std::fs::write(at("other"), b"y").unwrap();
    std::fs::hard_link(at("file"), at("hard")).unwrap();
    std::os::unix::fs::symlink("file", at("soft")).unwrap();
    let image = Location::new(&at("image"));
    let names = ["file", "other", "file", "hard", "./file", "soft", "other"];
    let files = follow(&[]).members(&image, &extents(&names)).unwrap();
    let shown: Vec<_> = files.iter().map(|file| file.name.to_path()).collect();
    assert_eq!(shown, names.map(at));
    let storages: Vec<_> = files.iter().map(|file| file.storage.as_ref().unwrap()).collect();
    let same = |one: usize| -> Vec<bool> {
        storages.iter().map(|other| Arc::ptr_eq(storages[one], other)).collect()
    };
    assert_eq!(same(0), [true, false, true, true, true, true, false]);
    assert_eq!(same(1), [false, true, false, false, false, false, true]);
}

#[test]
fn the_steps_of_all_names_are_bounded_and_equal_names_take_them_once() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    std::fs::write(at("file"), b"x").unwrap();
    // 2001 steps, and one for itself and one to open the file.
    std::os::unix::fs::symlink("./".repeat(2000) + "file", at("link")).unwrap();
    let image = Location::new(&at("image"));
    let equal = vec!["link"; 5000];
    assert_eq!(follow(&[]).members(&image, &extents(&equal)).unwrap().len(), 5000);
    // Half a million for names that differ.
    let names: Vec<String> = (0..250).map(|number| "/".repeat(number) + "link").collect();
    let names: Vec<String> = names.iter().map(|name| format!(".//{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let opener = follow(&[]);
    assert_eq!(opener.members(&image, &extents(&names[..125])).unwrap().len(), 125);
    // They are counted for the chain.
    let error = opener.members(&image, &extents(&names[125..])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(
        error.to_string(),
        "the names of other files lead through too many directories and symbolic links: more \
         than 262144 in all"
    );
}

#[test]
fn a_name_that_is_longer_than_any_path_is_shown_in_part() {
    let name = "\u{1b}".repeat(1 << 20);
    let image = Location::new(Path::new("image"));
    let error = Opener::default().members(&image, &extents(&[&name])).err().unwrap().to_string();
    assert!(
        error.contains("\\u{1b}\"... (1048576 bytes)), which is not opened"),
        "{}",
        error.len()
    );
    assert!(error.len() < 400, "{}", error.len());
}

#[test]
fn a_name_that_makes_too_long_a_path_is_refused() {
    let top = tempfile::tempdir().unwrap();
    std::fs::write(top.path().join("file"), b"x").unwrap();
    let image = top.path().join("image");
    let room = MAX_PATH - top.path().as_os_str().len() - 1;
    let name = |length: usize| "/".repeat(length - 4) + "file";
    let opener = follow(&[]);
    let padded = |length: usize| format!(".{}", name(length - 1));
    assert!(outcome(&opener, &image, &padded(room)).is_ok());
    let files = opener.members(&Location::new(&image), &extents(&[&padded(room + 1)]));
    let error = files.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("File name too long"), "{cause}");
}

#[test]
fn only_regular_files_are_followed_and_protocols_never() {
    let top = tempfile::tempdir().unwrap();
    let image = top.path().join("image");
    rustix::fs::mkfifoat(rustix::fs::CWD, top.path().join("fifo"), Mode::RUSR).unwrap();
    let opener = follow(&[Path::new("/dev")]);
    for (name, text) in [
        ("fifo", "which is a FIFO"),
        (".", "which is a directory"),
        ("/dev/null", "which is a device"),
        ("nbd://host/x", "looks like a protocol"),
        ("json:{\"driver\":\"file\"}", "looks like a protocol"),
        ("fd:3", "looks like a protocol"),
        ("file:fifo", "looks like a protocol"),
        ("", "which is not a file name"),
        ("a\0b", "which is not a file name"),
        ("nope", "cannot open the extent file \"nope\""),
    ] {
        let (error, advice) = outcome(&opener, &image, name).unwrap_err();
        assert!(error.contains(text), "{name}: {error}");
        let expected = (name != "nope").then_some(Advice::IgnoreExternal);
        assert_eq!(advice, expected, "{name}: {error}");
    }
}

#[test]
fn windows_names() {
    for (stored, here) in [
        (".\\base.vhd", "base.vhd"),
        ("..\\dir\\base.vhd", "../dir/base.vhd"),
        ("base.vhd", "base.vhd"),
        ("C:\\vm\\base.vhd", "base.vhd"),
        ("\\\\server\\share\\base.vhd", "base.vhd"),
        ("\\\\?\\Volume{1234}\\vm\\base.vhd", "base.vhd"),
        ("file://localhost/vm/base.vhd", "base.vhd"),
        ("/vm/base.vhd", "/vm/base.vhd"),
    ] {
        assert_eq!(from_windows(OsStr::new(stored)), here, "{stored}");
    }
}
