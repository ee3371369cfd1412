//! The file `control.sock` in a stage path: where it is, how it is made, and how it is connected to.
//!
//! Only the owner of the engine connects: the socket has the mode 0600 before anybody can connect to it. It is made under
//! another name and renamed, so that whoever finds it can connect. Socket paths hold 107 bytes: beyond that, both sides go
//! through `/proc/self/fd/<descriptor of the directory>/control.sock`, which leaves nothing behind.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use crate::stage::local::disk::{DiskError, adopt_owner};

/// The socket's name in the stage path.
pub const SOCKET_NAME: &str = "control.sock";

/// The socket's name while it is being made. Whoever makes one holds the path's lock.
const UNFINISHED_NAME: &str = "tmp-control.sock";

/// The most bytes of a socket's path: `sun_path` without its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operating system refused.
    #[error("the control socket {} could not be made", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// Its owner could not be set.
    #[error(transparent)]
    Owner(#[from] DiskError),
}

/// A socket's address for as long as it is used.
struct Address {
    path: PathBuf,
    /// What `path` leads through, if the real one is too long.
    _directory: Option<File>,
}

impl Address {
    fn of(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        if path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH {
            return Ok(Self {
                path,
                _directory: None,
            });
        }
        let opened = File::open(directory)?;
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())),
            _directory: Some(opened),
        })
    }
}

/// The socket that an engine listens on; removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
}

impl SocketFile {
    /// Makes the socket of a stage path and listens on it. The caller has the path's lock: what stands there is what a crash
    /// has left.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn listen(directory: &Path) -> Result<(Self, UnixListener), ListenError> {
        let (path, unfinished) = (directory.join(SOCKET_NAME), directory.join(UNFINISHED_NAME));
        let failed = |source| ListenError::Io {
            path: path.clone(),
            source,
        };
        remove(&unfinished).map_err(failed)?;
        let listener = listen_on(directory, &unfinished).map_err(failed)?;
        adopt_owner(&unfinished, directory)?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok((Self { path }, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket could not be removed");
        }
    }
}

/// Between `bind` and `listen` nobody can connect, so that the mode is set in time whatever the umask is.
fn listen_on(directory: &Path, unfinished: &Path) -> io::Result<StdListener> {
    let address = Address::of(directory, UNFINISHED_NAME)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&address.path)?)?;
    fs::set_permissions(unfinished, fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why nobody answers on a socket.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// There is no socket: no engine has the path open, or it is just being opened.
    NoSocket,
    /// A socket that a crash has left: nobody listens.
    Stale,
    /// It belongs to somebody else.
    Forbidden(String),
    /// Anything else.
    Other(io::Error),
}

/// Connects to the engine that has the path open.
pub(super) async fn connect(directory: &Path) -> Result<UnixStream, NoAnswer> {
    let connecting = async {
        let address = Address::of(directory, SOCKET_NAME)?;
        UnixStream::connect(&address.path).await
    };
    connecting.await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NoAnswer::NoSocket,
        io::ErrorKind::ConnectionRefused => NoAnswer::Stale,
        io::ErrorKind::PermissionDenied => NoAnswer::Forbidden(forbidden(directory)),
        _ => NoAnswer::Other(error),
    })
}

/// Whose socket it is, as far as that can be seen.
fn forbidden(directory: &Path) -> String {
    let socket = directory.join(SOCKET_NAME);
    let (what, owner) = match (fs::metadata(&socket), fs::metadata(directory)) {
        (Ok(found), _) => (socket, Some(found.uid())),
        (Err(_), Ok(found)) => (directory.to_owned(), Some(found.uid())),
        (Err(_), Err(_)) => (socket, None),
    };
    let own = rustix::process::geteuid().as_raw();
    match owner {
        Some(owner) => format!(
            "{} belongs to the user with the id {owner}, and this process runs as the user with the id {own}; run it as that \
             user, or as root",
            what.display()
        ),
        None => format!(
            "{} may not be used by the user with the id {own}; run it as the user of the engine, or as root",
            what.display()
        ),
    }
}
