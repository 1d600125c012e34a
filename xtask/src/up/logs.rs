//! The logs of what `up` runs, kept from filling the disk: a gateway under load writes an access log
//! line per request, and nobody rotates it here.

use std::fs::File;
use std::path::Path;

/// Of each log. Some 200 000 access log lines, or an hour of a few dozen requests per second.
const BYTES_MAX: u64 = 64 << 20;

/// Empties every log in the folder that has grown too long, and names those. They are written by
/// appending, so their writers go on at the new end.
pub(super) fn keep_short(place: &Path) -> Vec<String> {
    keep_below(place, BYTES_MAX)
}

fn keep_below(place: &Path, bytes: u64) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(place) else { return Vec::new() };
    let is_log = |path: &Path| path.extension().is_some_and(|e| e == "stdout" || e == "stderr");
    let too_long = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > bytes);
    let files = entries.flatten().map(|entry| entry.path());
    files
        .filter(|file| is_log(file) && too_long(file))
        .filter(|file| File::options().write(true).open(file).is_ok_and(|f| f.set_len(0).is_ok()))
        .map(|file| file.display().to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_long_log_begins_anew_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("envoy.stdout");
        let mut writer = File::options().create(true).append(true).open(&file).unwrap();
        writer.write_all(&[b'a'; 100]).unwrap();
        std::fs::write(dir.path().join("envoy.json"), [b'a'; 100]).unwrap();
        assert!(keep_below(dir.path(), 100).is_empty());
        assert_eq!(keep_below(dir.path(), 99), [file.display().to_string()]);
        writer.write_all(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "next\n");
        assert_eq!(std::fs::metadata(dir.path().join("envoy.json")).unwrap().len(), 100);
    }
}
