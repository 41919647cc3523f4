//! What real qemu-img binaries printed: `testdata/expected`.

use serde_json::Value;

use super::manifest::{Entry, strings, testdata};

/// What qemu-img answered.
pub(crate) struct Theirs {
    /// Exit status, 128 and more for a signal; `None` if it did not end.
    pub(crate) status: Option<i64>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `stdout` is only the beginning of it.
    pub(crate) truncated: bool,
}

/// One recorded run.
pub(crate) struct Case {
    /// The arguments of the variant.
    pub(crate) extra: Vec<String>,
    /// Further arguments: output and window.
    pub(crate) args: Vec<String>,
    pub(crate) theirs: Theirs,
}

impl Case {
    /// `json` or `human`.
    pub(crate) fn output(&self) -> &'static str {
        output_of(&self.args)
    }

    /// Whether the whole image was asked about.
    pub(crate) fn is_whole(&self) -> bool {
        !self.args.iter().any(|arg| arg == "-s" || arg == "-l")
    }
}

/// The output that these arguments ask for.
pub(crate) fn output_of(args: &[String]) -> &'static str {
    match args.iter().any(|arg| arg == "--output=json") {
        true => "json",
        false => "human",
    }
}

/// The recorded versions, oldest first.
pub(crate) fn versions() -> Vec<String> {
    let number = |part: &str| part.parse::<u32>().ok();
    let mut versions: Vec<(Vec<u32>, String)> = std::fs::read_dir(testdata("expected"))
        .expect("recorded baselines")
        .map(|item| item.expect("a folder").file_name())
        .filter_map(|name| {
            let name = name.into_string().ok()?;
            let numbers: Option<Vec<u32>> = name.split('.').map(number).collect();
            Some((numbers?, name))
        })
        .collect();
    versions.sort();
    let names: Vec<String> = versions.into_iter().map(|(_, name)| name).collect();
    for needed in ["5.2", "7.2", "10.0", "11.1"] {
        assert!(names.iter().any(|name| name == needed), "{needed} recorded");
    }
    names
}

/// The recorded runs of an image.
///
/// # Errors
/// If nothing is recorded, or not what the manifest asks for.
pub(crate) fn cases(entry: &Entry, version: &str) -> Result<Vec<Case>, String> {
    let path = testdata(&format!("expected/{version}/{}.json", entry.id));
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("{}: {e}; record it with testdata/record", path.display()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| format!("{path:?}: {e}"))?;
    let cases: Vec<Case> = value["cases"]
        .as_array()
        .ok_or("a baseline without cases")?
        .iter()
        .map(|case| Case {
            extra: strings(&case["extra"]),
            args: strings(&case["args"]),
            theirs: Theirs {
                status: case["status"].as_i64(),
                stdout: case["stdout"].as_str().unwrap_or_default().to_owned(),
                stderr: case["stderr"].as_str().unwrap_or_default().to_owned(),
                truncated: case["truncated"].as_bool().unwrap_or(false),
            },
        })
        .collect();
    let expected = entry.variants.len() * (1 + entry.windows.len()) * 2;
    if cases.len() != expected {
        return Err(format!(
            "{} recorded cases, {expected} expected; record it anew with testdata/record",
            cases.len()
        ));
    }
    Ok(cases)
}
