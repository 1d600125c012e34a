//! The settings of `serve`, checked all at once.

use super::guard::Token;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Shortest token: what `openssl rand -hex 8` gives can still not be guessed over a network.
const TOKEN_MIN: usize = 16;
/// Longest token: it must fit a header.
const TOKEN_MAX: usize = 4096;
/// Random bytes of a token that is made here.
const TOKEN_BYTES: usize = 32;

/// As they were given.
#[derive(Debug)]
pub(crate) struct Given {
    /// `--listen`.
    pub(crate) listen: String,
    /// `--envoy-admin`.
    pub(crate) envoy_admin: String,
    /// `--admin-token-file`.
    pub(crate) admin_token_file: Option<PathBuf>,
    /// `--sync-token-file`.
    pub(crate) sync_token_file: Option<PathBuf>,
    /// `GATEWAY_SYNC_TOKEN`; the file wins.
    pub(crate) sync_token: Option<String>,
    /// `--data-dir`.
    pub(crate) data_dir: PathBuf,
    /// `--files-dir`.
    pub(crate) files_dir: PathBuf,
}

/// As they are used.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where to listen; port 0 is any free one.
    pub(crate) listen: SocketAddr,
    /// Host and port of Envoy's admin interface.
    pub(crate) envoy_admin: String,
    /// What administrators send.
    pub(crate) admin_token: Token,
    /// What the filter sends.
    pub(crate) sync_token: Token,
    /// Where the store is kept; it is there.
    pub(crate) data_dir: PathBuf,
    /// From where files are read that a policy names; it may come later.
    pub(crate) files_dir: PathBuf,
}

impl Given {
    /// Checks everything. The file of the admin token and the data directory are made when they are
    /// not there.
    ///
    /// # Errors
    /// Every mistake, each with the setting that it is about.
    pub(crate) fn check(self) -> Result<Settings, Vec<String>> {
        let listen = self.listen.parse::<SocketAddr>().map_err(|_| {
            format!("--listen: `{}` is no address; allowed: as 127.0.0.1:9902", self.listen)
        });
        let envoy_admin = authority(&self.envoy_admin);
        let admin_token = match &self.admin_token_file {
            Some(file) => admin_token(file),
            None => Err("--admin-token-file (GATEWAY_ADMIN_TOKEN_FILE): is not set; allowed: a \
                         file, which is made with a random token when it is not there"
                .to_owned()),
        };
        let sync_token = match (&self.sync_token_file, self.sync_token) {
            (Some(file), _) => token_of("--sync-token-file", file),
            (None, Some(text)) => token("GATEWAY_SYNC_TOKEN", &text),
            (None, None) => Err("--sync-token-file: is not set, nor is the variable \
                                 GATEWAY_SYNC_TOKEN; allowed: the token that the policy's \
                                 `sidecar.token` names"
                .to_owned()),
        };
        let data_dir = data_dir(self.data_dir);
        let files_dir = files_dir(self.files_dir);
        match (listen, envoy_admin, admin_token, sync_token, data_dir, files_dir) {
            (
                Ok(listen),
                Ok(envoy_admin),
                Ok(admin_token),
                Ok(sync_token),
                Ok(data_dir),
                Ok(files_dir),
            ) => Ok(Settings { listen, envoy_admin, admin_token, sync_token, data_dir, files_dir }),
            (listen, envoy_admin, admin_token, sync_token, data_dir, files_dir) => {
                let errors = [
                    listen.err(),
                    envoy_admin.err(),
                    admin_token.err(),
                    sync_token.err(),
                    data_dir.err(),
                    files_dir.err(),
                ];
                Err(errors.into_iter().flatten().collect())
            }
        }
    }
}

fn data_dir(dir: PathBuf) -> Result<PathBuf, String> {
    // Whoever can read it knows who was revoked.
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        Ok(()) => Ok(dir),
        Err(error) => Err(format!(
            "--data-dir: {}: cannot be made: {error}; allowed: a directory that this user may \
             write to, or make",
            dir.display()
        )),
    }
}

fn files_dir(dir: PathBuf) -> Result<PathBuf, String> {
    match fs::metadata(&dir) {
        Ok(metadata) if !metadata.is_dir() => Err(format!(
            "--files-dir: {}: is no directory; allowed: the directory from which files are read \
             that a policy names",
            dir.display()
        )),
        _ => Ok(dir),
    }
}

fn authority(url: &str) -> Result<String, String> {
    let refuse =
        || format!("--envoy-admin: `{url}` is not understood; allowed: as http://127.0.0.1:9901");
    let authority = url.strip_prefix("http://").ok_or_else(refuse)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let parsed: axum::http::uri::Authority = authority.parse().map_err(|_| refuse())?;
    if parsed.host().is_empty() || parsed.as_str().contains('@') {
        return Err(refuse());
    }
    Ok(authority.to_owned())
}

/// The token of a file, which is made when it is not there: under another name first, so that it is
/// never there without its token.
fn admin_token(file: &Path) -> Result<Token, String> {
    let made = match file.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => make_token(file),
        Err(error) => Err(error),
    };
    made.map_err(|error| format!("--admin-token-file: {}: {error}", file.display()))?;
    token_of("--admin-token-file", file)
}

fn make_token(file: &Path) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let making = directory.join(format!(".{name}.{}", std::process::id()));
    match fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = fs::OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(0o600).open(&making)?;
    new.write_all(format!("{text}\n").as_bytes())?;
    new.sync_all()?;
    // Unlike a rename, a link does not replace what another sidecar has made meanwhile.
    let linked = match fs::hard_link(&making, file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    fs::remove_file(&making)?;
    linked?;
    fs::File::open(directory)?.sync_all()
}

fn token_of(setting: &str, file: &Path) -> Result<Token, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{setting}: {}: {error}", file.display()))?;
    token(&format!("{setting}: {}", file.display()), &text)
}

fn token(setting: &str, text: &str) -> Result<Token, String> {
    let text = text.trim();
    if !(TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(format!(
            "{setting}: the token has {} bytes; allowed: {TOKEN_MIN} to {TOKEN_MAX} visible ASCII \
             characters",
            text.len()
        ));
    }
    Ok(Token::new(text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::Directory;

    fn given(directory: &Directory) -> Given {
        Given {
            listen: "127.0.0.1:0".into(),
            envoy_admin: "http://127.0.0.1:9901/".into(),
            admin_token_file: Some(directory.0.join("token")),
            sync_token_file: None,
            sync_token: Some("0123456789abcdef".into()),
            data_dir: directory.0.join("data/deep"),
            files_dir: directory.0.join("not-yet"),
        }
    }

    #[test]
    fn the_admin_token_is_made_once_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new();
        let first = given(&directory).check().unwrap();
        let file = directory.0.join("token");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.trim().len(), 2 * TOKEN_BYTES);
        given(&directory).check().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(first.envoy_admin, "127.0.0.1:9901");
        assert!(!format!("{first:?}").contains(text.trim()));
    }

    #[test]
    fn a_token_file_never_is_there_without_its_token() {
        let directory = Directory::new();
        let file = directory.0.join("token");
        // What one leaves that was killed while it made the file.
        fs::write(directory.0.join(format!(".token.{}", std::process::id())), "ab").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Every sight of the file, as one that is killed at that moment would leave it.
            let looking = scope.spawn(|| {
                let mut seen = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    seen.extend(fs::read_to_string(&file).map(|text| text.len()));
                }
                seen
            });
            // Nothing may end this thread before the other one is told to stop.
            let made: Vec<bool> = (0..200)
                .map(|_| given(&directory).check().is_ok() && fs::remove_file(&file).is_ok())
                .collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let seen = looking.join().unwrap();
            assert!(made.iter().all(|made| *made), "{made:?}");
            assert!(seen.iter().all(|length| *length == 2 * TOKEN_BYTES + 1), "{seen:?}");
        });
        let data = directory.0.join("data");
        let left: Vec<_> =
            fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [data]);
    }

    #[test]
    fn the_data_directory_is_made_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new();
        let settings = given(&directory).check().unwrap();
        let mode = fs::metadata(&settings.data_dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        given(&directory).check().unwrap();
    }

    #[test]
    fn all_mistakes_are_said_at_once() {
        let directory = Directory::new();
        let file = directory.0.join("file");
        fs::write(&file, "").unwrap();
        let wrong = Given {
            listen: "here".into(),
            envoy_admin: "https://x".into(),
            admin_token_file: None,
            sync_token_file: None,
            sync_token: Some("short".into()),
            data_dir: file.join("below"),
            files_dir: file,
        };
        let said = wrong.check().unwrap_err();
        assert_eq!(said.len(), 6, "{said:#?}");
        assert!(said[4].starts_with("--data-dir: "), "{said:#?}");
        assert!(said[5].starts_with("--files-dir: "), "{said:#?}");
        assert!(said[3].starts_with("GATEWAY_SYNC_TOKEN: the token has 5 bytes"));
    }
}
