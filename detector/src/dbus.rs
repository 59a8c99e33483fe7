//! Questions and answers of D-Bus over a Unix socket of the host, peer to peer: with a deadline for all of
//! them and a bound on what comes back.
//!
//! Three methods are called. A crate for all of D-Bus would turn on features of crates that have nothing
//! to do with it.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::text;

/// Of one message; the protocol allows 128 MiB.
const LARGEST: usize = 4 << 20;
/// Of the lines before the first message.
const LONGEST_LINE: u64 = 512;
/// How long it may take before it is reminded.
const NUDGE: Duration = Duration::from_millis(100);
/// Questions that are written before their answers are read.
const AT_ONCE: usize = 64;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Failure {
    #[error("nobody listens there")]
    Absent,
    /// The error's name, as the peer says.
    #[error("refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Broken(String),
}

pub(crate) struct Call<'a> {
    pub path: &'a str,
    pub interface: &'a str,
    pub method: &'a str,
    pub arguments: Vec<Argument<'a>>,
}

pub(crate) enum Argument<'a> {
    Text(&'a str),
    Texts(Vec<&'a str>),
}

pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Connection {
    /// As the user that the agent is, by the socket's own word.
    pub(crate) async fn open(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket).await.map_err(not_connected)?;
        let mut stream = BufReader::new(stream);
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        let hello = format!("\0AUTH EXTERNAL {user}\r\n");
        stream.write_all(hello.as_bytes()).await.map_err(broken)?;
        let mut line = Vec::new();
        let mut begin = (&mut stream).take(LONGEST_LINE);
        begin.read_until(b'\n', &mut line).await.map_err(broken)?;
        if !line.starts_with(b"OK ") {
            let said = text::printable(line.trim_ascii(), 128);
            return Err(Failure::Broken(format!("no access: it says {said:?}")));
        }
        stream.write_all(b"BEGIN\r\n").await.map_err(broken)?;
        let mut connection = Self { stream, serial: 0 };
        connection.wait_until_it_reads().await?;
        Ok(connection)
    }

    /// systemd leaves a message unread that it has received together with the last line, until another
    /// one comes.
    async fn wait_until_it_reads(&mut self) -> Result<(), Failure> {
        let ping = Call {
            path: "/",
            interface: "org.freedesktop.DBus.Peer",
            method: "Ping",
            arguments: Vec::new(),
        };
        loop {
            self.serial = self.serial.wrapping_add(1);
            let bytes = message(&ping, self.serial);
            self.stream.write_all(&bytes).await.map_err(broken)?;
            if let Ok(begun) = timeout(NUDGE, self.stream.fill_buf()).await {
                begun.map_err(broken)?;
                break;
            }
        }
        while self.next().await?.0 != self.serial {}
        Ok(())
    }

    /// The answers in the order of the calls.
    pub(crate) async fn call(
        &mut self,
        calls: &[Call<'_>],
    ) -> Result<Vec<Result<Body, Failure>>, Failure> {
        let mut answers = Vec::with_capacity(calls.len());
        for calls in calls.chunks(AT_ONCE) {
            let first = self.serial.wrapping_add(1);
            let mut bytes = Vec::new();
            for call in calls {
                self.serial = self.serial.wrapping_add(1);
                bytes.extend(message(call, self.serial));
            }
            self.stream.write_all(&bytes).await.map_err(broken)?;
            let mut open: Vec<_> = calls.iter().map(|_| None).collect();
            while open.iter().any(Option::is_none) {
                let (serial, answer) = self.next().await?;
                let place = serial.wrapping_sub(first);
                let place = usize::try_from(place).ok().and_then(|at| open.get_mut(at));
                let place = place.ok_or_else(|| malformed("an answer to no question"))?;
                *place = Some(answer);
            }
            answers.extend(open.into_iter().flatten());
        }
        Ok(answers)
    }

    /// The next answer, and to which call. Signals are passed over.
    async fn next(&mut self) -> Result<(u32, Result<Body, Failure>), Failure> {
        loop {
            let mut fixed = [0; 16];
            self.stream.read_exact(&mut fixed).await.map_err(broken)?;
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| fixed[at + byte]));
            // Both ends are on one machine.
            if fixed[0] != b'l' || fixed[3] != 1 {
                return Err(malformed("no message of D-Bus in this byte order"));
            }
            let length = |at| usize::try_from(word(at)).unwrap_or(usize::MAX);
            let (body, fields) = (length(4), length(12));
            let whole = fields
                .checked_next_multiple_of(8)
                .and_then(|fields| fields.checked_add(body))
                .filter(|whole| *whole <= LARGEST)
                .ok_or_else(|| malformed("a message that is too long"))?;
            let mut rest = vec![0; whole];
            self.stream.read_exact(&mut rest).await.map_err(broken)?;
            let content = rest.split_off(whole - body);
            rest.truncate(fields);
            let head = Head::read(Body::new(rest, String::new()))
                .ok_or_else(|| malformed("a header that cannot be read"))?;
            let Some(serial) = head.answers else {
                continue;
            };
            match fixed[1] {
                RETURN => return Ok((serial, Ok(Body::new(content, head.signature)))),
                ERROR => return Ok((serial, Err(Failure::Refused(head.error)))),
                _ => {}
            }
        }
    }
}

/// Of the header's fields, what is looked at.
#[derive(Default)]
struct Head {
    answers: Option<u32>,
    error: String,
    signature: String,
}

impl Head {
    fn read(mut fields: Body) -> Option<Self> {
        let mut head = Self::default();
        while !fields.is_at_end() {
            fields.align(8)?;
            let code = fields.byte()?;
            match (code, fields.signature()?.as_str()) {
                (4, "s") => head.error = fields.text()?,
                (5, "u") => head.answers = Some(fields.number()?),
                (8, "g") => head.signature = fields.signature()?,
                (_, "s" | "o") => drop(fields.text()?),
                (_, "g") => drop(fields.signature()?),
                (_, "u") => drop(fields.number()?),
                _ => return None,
            }
        }
        Some(head)
    }
}

/// What an answer says, read from front to back; None where it is not what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    at: usize,
    pub signature: String,
}

impl Body {
    pub(crate) fn new(bytes: Vec<u8>, signature: String) -> Self {
        Self {
            bytes,
            at: 0,
            signature,
        }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn place(&self) -> usize {
        self.at
    }

    pub(crate) fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let begin = self.at;
        let end = begin.checked_add(length)?;
        let taken = self.bytes.get(begin..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Of a string, or of a path.
    pub(crate) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.ended_by_nul(length)
    }

    pub(crate) fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.ended_by_nul(length)
    }

    fn ended_by_nul(&mut self, length: usize) -> Option<String> {
        let text = self.take(length.checked_add(1)?)?;
        let text = text.strip_suffix(b"\0")?.to_vec();
        String::from_utf8(text).ok()
    }
}

fn message(call: &Call, serial: u32) -> Vec<u8> {
    let mut body = Writer::default();
    let mut signature = String::new();
    for argument in &call.arguments {
        match argument {
            Argument::Text(text) => {
                signature.push('s');
                body.text(text);
            }
            Argument::Texts(texts) => {
                signature.push_str("as");
                body.array(4, |body| texts.iter().for_each(|text| body.text(text)));
            }
        }
    }
    let mut whole = Writer(vec![b'l', CALL, 0, 1]);
    whole.length(body.0.len());
    whole.0.extend(serial.to_le_bytes());
    whole.array(8, |fields| {
        for (code, kind, value) in [
            (1, "o", call.path),
            (2, "s", call.interface),
            (3, "s", call.method),
        ] {
            fields.align(8);
            fields.0.push(code);
            fields.signature(kind);
            fields.text(value);
        }
        if !signature.is_empty() {
            fields.align(8);
            fields.0.push(8);
            fields.signature("g");
            fields.signature(&signature);
        }
    });
    whole.align(8);
    whole.0.extend(body.0);
    whole.0
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn length(&mut self, length: usize) {
        // What is written is short.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.0.extend(length.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.align(4);
        self.length(text.len());
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, signature: &str) {
        self.0
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.bytes().chain([0]));
    }

    /// Of elements that begin at multiples of `align`.
    fn array(&mut self, align: usize, write: impl FnOnce(&mut Self)) {
        self.align(4);
        let place = self.0.len();
        self.length(0);
        self.align(align);
        let begin = self.0.len();
        write(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[place..place + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn not_connected(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused => {
            Failure::Absent
        }
        _ => broken(error),
    }
}

fn malformed(what: &str) -> Failure {
    Failure::Broken(what.to_owned())
}

fn broken(error: io::Error) -> Failure {
    Failure::Broken(text::printable(error.to_string().as_bytes(), 256))
}

/// A peer as real as a client can tell, for tests of whoever asks.
#[cfg(test)]
pub(crate) mod server {
    use std::collections::BTreeMap;
    use std::io::{BufRead, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// What it does with a call.
    pub(crate) enum Deed {
        /// With this signature, and a body that ends where it ends.
        Answer(&'static str, Vec<u8>),
        Refuse(&'static str),
        /// These bytes, whatever they are.
        Raw(Vec<u8>),
        Silence,
    }

    pub(crate) struct Asked {
        pub path: String,
        pub method: String,
        pub body: Body,
    }

    pub(crate) struct Server {
        pub(crate) socket: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Server {
        pub(crate) fn start(answer: impl Fn(Asked) -> Deed + Send + Sync + 'static) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("private");
            let listener = UnixListener::bind(&socket).unwrap();
            let answer = Arc::new(answer);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                    // A client that is gone ends it.
                    thread::spawn(move || drop(serve(stream, answer.as_ref())));
                }
            });
            Self {
                socket,
                _folder: folder,
            }
        }
    }

    fn serve(stream: UnixStream, answer: &dyn Fn(Asked) -> Deed) -> io::Result<()> {
        let mut write = stream.try_clone()?;
        let mut read = io::BufReader::new(stream);
        let mut line = Vec::new();
        read.read_until(b'\n', &mut line)?;
        // 30: the user 0.
        assert!(line.starts_with(b"\0AUTH EXTERNAL 3"), "{line:?}");
        write.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?;
        line.clear();
        read.read_until(b'\n', &mut line)?;
        assert_eq!(line, b"BEGIN\r\n");
        loop {
            let mut fixed = [0; 16];
            read.read_exact(&mut fixed)?;
            let word = |at: usize| {
                let word = u32::from_le_bytes(fixed[at..at + 4].try_into().unwrap());
                usize::try_from(word).unwrap()
            };
            assert_eq!(fixed[..4], [b'l', CALL, 0, 1]);
            let mut fields = vec![0; word(12).next_multiple_of(8)];
            read.read_exact(&mut fields)?;
            fields.truncate(word(12));
            let mut body = vec![0; word(4)];
            read.read_exact(&mut body)?;
            let mut fields = fields_of(fields);
            let asked = Asked {
                path: fields.remove(&1).unwrap(),
                method: fields.remove(&3).unwrap(),
                body: Body::new(body, fields.remove(&8).unwrap_or_default()),
            };
            let serial = u32::try_from(word(8)).unwrap();
            if asked.method == "Ping" {
                // The first one is not read before there is another.
                if serial > 1 {
                    // A peer may send signals that nobody asked for.
                    write.write_all(&reply(4, 0, "s", &texts(&["news"]), ""))?;
                    write.write_all(&reply(RETURN, 1, "", &[], ""))?;
                    write.write_all(&reply(RETURN, serial, "", &[], ""))?;
                }
                continue;
            }
            write.write_all(&match answer(asked) {
                Deed::Answer(signature, body) => reply(RETURN, serial, signature, &body, ""),
                Deed::Refuse(name) => reply(ERROR, serial, "", &[], name),
                Deed::Raw(bytes) => bytes,
                Deed::Silence => Vec::new(),
            })?;
        }
    }

    fn fields_of(bytes: Vec<u8>) -> BTreeMap<u8, String> {
        let mut fields = Body::new(bytes, String::new());
        let mut found = BTreeMap::new();
        while !fields.is_at_end() {
            fields.align(8).unwrap();
            let code = fields.byte().unwrap();
            let kind = fields.signature().unwrap();
            let text = if kind == "g" {
                fields.signature()
            } else {
                fields.text()
            };
            found.insert(code, text.unwrap());
        }
        found
    }

    fn reply(kind: u8, serial: u32, signature: &str, body: &[u8], error: &str) -> Vec<u8> {
        let mut whole = Writer(vec![b'l', kind, 0, 1]);
        whole.length(body.len());
        whole.length(7);
        whole.array(8, |fields| {
            if serial > 0 {
                fields.0.push(5);
                fields.signature("u");
                fields.align(4);
                fields.0.extend(serial.to_le_bytes());
            }
            for (code, kind, text) in [(4, "s", error), (8, "g", signature)] {
                if text.is_empty() {
                    continue;
                }
                fields.align(8);
                fields.0.push(code);
                fields.signature(kind);
                if kind == "g" {
                    fields.signature(text);
                } else {
                    fields.text(text);
                }
            }
        });
        whole.align(8);
        whole.0.extend(body);
        whole.0
    }

    /// One string after the other.
    pub(crate) fn texts(texts: &[&str]) -> Vec<u8> {
        let mut body = Writer::default();
        texts.iter().for_each(|text| body.text(text));
        body.0
    }

    /// A variant of a number, or of a string.
    pub(crate) fn variant_number(number: u32) -> Vec<u8> {
        let mut body = Writer::default();
        body.signature("u");
        body.align(4);
        body.0.extend(number.to_le_bytes());
        body.0
    }

    pub(crate) fn variant_text(text: &str) -> Vec<u8> {
        let mut body = Writer::default();
        body.signature("s");
        body.text(text);
        body.0
    }

    /// `a(ssssssouso)`, by name and state.
    pub(crate) fn units(units: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Writer::default();
        body.array(8, |body| {
            for (name, sub) in units {
                body.align(8);
                for text in [name, "a service", "loaded", "active", sub, ""] {
                    body.text(text);
                }
                body.text(&format!("/unit/{}", name.replace('.', "_2e")));
                body.align(4);
                body.0.extend([0; 4]);
                body.text("");
                body.text("/");
            }
        });
        body.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::server::{Deed, Server, texts};
    use super::*;

    fn on_tokio<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(20), work).await.unwrap() })
    }

    fn say(word: &str) -> Call<'_> {
        Call {
            path: "/x",
            interface: "x.Y",
            method: "Say",
            arguments: vec![
                Argument::Text(word),
                Argument::Texts(vec!["twice", word]),
                Argument::Texts(Vec::new()),
            ],
        }
    }

    fn asked(server: &Server, calls: &[Call<'_>]) -> Result<Vec<Result<Body, Failure>>, Failure> {
        on_tokio(async {
            let mut peer = Connection::open(&server.socket).await?;
            peer.call(calls).await
        })
    }

    #[test]
    fn questions_are_answered_in_their_order_and_errors_are_told_by_name() {
        let server = Server::start(|mut asked| {
            assert_eq!((asked.path.as_str(), asked.method.as_str()), ("/x", "Say"));
            assert_eq!(asked.body.signature, "sasas");
            match asked.body.text().unwrap().as_str() {
                "no" => Deed::Refuse("x.No"),
                word => Deed::Answer("s", texts(&[word])),
            }
        });
        let words: Vec<_> = (0..200).map(|number| format!("w{number}")).collect();
        let mut calls: Vec<_> = words.iter().map(|word| say(word)).collect();
        calls.push(say("no"));
        let mut answers = asked(&server, &calls).unwrap();
        let refused = answers.pop().unwrap();
        assert_eq!(refused, Err(Failure::Refused("x.No".to_owned())));
        let said = answers
            .into_iter()
            .map(|answer| answer.unwrap().text().unwrap());
        assert_eq!(said.collect::<Vec<_>>(), words);
    }

    #[test]
    fn what_is_no_message_or_too_long_is_an_error() {
        let mut long = vec![b'l', RETURN, 0, 1];
        long.extend([0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0, 0, 0, 0, 0]);
        for bytes in [long, vec![b'B'; 16], b"HTTP/1.1 400 Bad Request".to_vec()] {
            let server = Server::start(move |_| Deed::Raw(bytes.clone()));
            let answer = asked(&server, &[say("w")]);
            assert!(matches!(answer, Err(Failure::Broken(_))), "{answer:?}");
        }
    }

    #[test]
    fn who_gives_no_access_or_is_not_there_is_said_so() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let open = || on_tokio(Connection::open(&socket)).map(drop);
        assert_eq!(open(), Err(Failure::Absent));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for line in ["REJECTED EXTERNAL\r\n".to_owned(), "x".repeat(100_000)] {
            let peer = listener.try_clone().unwrap();
            let peer = std::thread::spawn(move || {
                let mut stream = peer.accept().unwrap().0;
                let _gone = stream.write_all(line.as_bytes());
            });
            let Err(Failure::Broken(why)) = open() else {
                panic!("open");
            };
            assert!(why.starts_with("no access"), "{why}");
            // It listens as long.
            peer.join().unwrap();
        }
        drop(listener);
        assert_eq!(open(), Err(Failure::Absent));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = || Body::new(bytes.clone(), String::new());
            let _ = Head::read(body());
            let mut body = body();
            while body.text().is_some() || body.signature().is_some() {}
            prop_assert!(body.place() <= bytes.len() + 8);
        }
    }
}
