//! One question and one answer of gRPC over a Unix socket of the host: HTTP/2 in clear text, with a deadline
//! for all of it and a bound on what comes back.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::text;

/// As gRPC's own default for one message.
const LARGEST: usize = 4 << 20;
/// Of all headers, or of all trailers.
const HEADERS: u32 = 16 << 10;
/// Whether it is compressed, and its length.
const PREFIX: usize = 5;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Failure {
    #[error("nobody listens there")]
    Absent,
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// As the server says.
    #[error("status {code}: {message}")]
    Refused { code: u32, message: String },
    #[error("{0}")]
    Broken(String),
}

/// Asks `method`, as `/package.Service/Method`. Blocks the calling thread, for `patience` at most, and is not
/// to be called where tokio runs.
pub(crate) fn unary<Answer: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
    patience: Duration,
) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken)?;
    let exchange = async {
        timeout(patience, ask(socket, method, question))
            .await
            .unwrap_or(Err(Failure::Late(patience)))
    };
    let message = runtime.block_on(exchange)?;
    Answer::decode(message).map_err(broken)
}

async fn ask(socket: &Path, method: &str, question: &impl Message) -> Result<Bytes, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(not_connected)?;
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(HEADERS)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(broken)?;
    let request = Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(broken)?;
    // The connection does the reading and writing while the call waits.
    tokio::select! {
        biased;
        answer = call(sender, request, framed(question)) => answer,
        ended = connection => Err(match ended {
            Ok(()) => Failure::Broken("the connection was closed".to_owned()),
            Err(error) => broken(error),
        }),
    }
}

async fn call(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    question: Bytes,
) -> Result<Bytes, Failure> {
    let mut sender = sender.ready().await.map_err(broken)?;
    let (answer, mut body) = sender.send_request(request, false).map_err(broken)?;
    body.send_data(question, true).map_err(broken)?;
    let (head, mut body) = answer.await.map_err(broken)?.into_parts();
    if !head.status.is_success() {
        return Err(Failure::Broken(format!("HTTP status {}", head.status)));
    }
    let mut bytes = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(broken)?;
        bytes.extend_from_slice(&part);
        if bytes.len() > LARGEST + PREFIX {
            let error = format!("an answer of more than {LARGEST} bytes");
            return Err(Failure::Broken(error));
        }
        let window = body.flow_control();
        window.release_capacity(part.len()).map_err(broken)?;
    }
    let trailers = body.trailers().await.map_err(broken)?;
    // Without a message the status is in the headers.
    status(trailers.as_ref().unwrap_or(&head.headers))?;
    unframed(bytes.freeze())
}

fn status(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).map(http::HeaderValue::as_bytes);
    let code = text("grpc-status").and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            let message = text::printable(message, 256);
            Err(Failure::Refused { code, message })
        }
        None => Err(Failure::Broken("no status of gRPC".to_owned())),
    }
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend(message.encode_to_vec());
    bytes.freeze()
}

fn unframed(mut bytes: Bytes) -> Result<Bytes, Failure> {
    let whole = |bytes: &Bytes| {
        let length = bytes.get(1..PREFIX)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        // Compressed only where it was asked for.
        (bytes[0] == 0 && bytes.len() == PREFIX + length).then_some(())
    };
    whole(&bytes).ok_or_else(|| Failure::Broken("not one message of gRPC".to_owned()))?;
    Ok(bytes.split_off(PREFIX))
}

fn not_connected(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused => {
            Failure::Absent
        }
        _ => broken(error),
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(text::printable(error.to_string().as_bytes(), 256))
}

/// A server as real as a client can tell, for tests of whoever asks.
#[cfg(test)]
pub(crate) mod server {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    /// What it does with each question, by method and message.
    pub(crate) enum Deed {
        Answer(Vec<u8>),
        Refuse(u32, &'static str),
        /// These bytes, framed or not, and no end where `ends` is false.
        Raw {
            bytes: Vec<u8>,
            ends: bool,
        },
        Silence,
    }

    pub(crate) struct Server {
        pub(crate) socket: PathBuf,
        _folder: tempfile::TempDir,
        _runtime: tokio::runtime::Runtime,
    }

    impl Server {
        pub(crate) fn start(answer: impl Fn(&str, Bytes) -> Deed + Send + Sync + 'static) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("s.sock");
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let listener = {
                let _inside = runtime.enter();
                tokio::net::UnixListener::bind(&socket).unwrap()
            };
            let answer = Arc::new(answer);
            runtime.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, Arc::clone(&answer)));
                }
            });
            Self {
                socket,
                _folder: folder,
                _runtime: runtime,
            }
        }
    }

    async fn serve<A: Fn(&str, Bytes) -> Deed>(stream: UnixStream, answer: Arc<A>) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        // A client that is gone breaks it off.
        while let Some(Ok((request, respond))) = connection.accept().await {
            let method = request.uri().path().to_owned();
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let mut body = request.into_body();
            let mut bytes = BytesMut::new();
            // What it is sent is with the request.
            while let Some(Ok(part)) = body.data().await {
                bytes.extend_from_slice(&part);
            }
            let question = unframed(bytes.freeze()).unwrap();
            drop(reply(answer(&method, question), respond));
        }
    }

    fn reply(
        deed: Deed,
        mut respond: h2::server::SendResponse<Bytes>,
    ) -> Result<Option<h2::SendStream<Bytes>>, h2::Error> {
        let head = || http::Response::new(());
        let mut trailers = HeaderMap::new();
        match deed {
            Deed::Answer(message) => {
                let mut bytes = BytesMut::new();
                bytes.put_u8(0);
                bytes.put_u32(u32::try_from(message.len()).unwrap());
                bytes.extend(message);
                let mut body = respond.send_response(head(), false)?;
                body.send_data(bytes.freeze(), false)?;
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                body.send_trailers(trailers)?;
                Ok(None)
            }
            Deed::Refuse(code, message) => {
                let mut head = head();
                let headers = head.headers_mut();
                headers.insert("grpc-status", code.into());
                let message = http::HeaderValue::from_static(message);
                headers.insert("grpc-message", message);
                respond.send_response(head, true)?;
                Ok(None)
            }
            Deed::Raw { bytes, ends } => {
                let mut body = respond.send_response(head(), false)?;
                body.send_data(bytes.into(), false)?;
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                if ends {
                    body.send_trailers(trailers)?;
                    return Ok(None);
                }
                std::mem::forget(body);
                Ok(None)
            }
            Deed::Silence => {
                std::mem::forget(respond);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::server::{Deed, Server};
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Word {
        #[prost(string, tag = "1")]
        text: String,
    }

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    fn word(text: &str) -> Word {
        let text = text.to_owned();
        Word { text }
    }

    fn asked(server: &Server, patience: Duration) -> Result<Word, Failure> {
        unary(&server.socket, "/x.Y/Z", &word("who"), patience)
    }

    #[test]
    fn a_question_is_answered() {
        let server = Server::start(|method, question| {
            assert_eq!(method, "/x.Y/Z");
            assert_eq!(Word::decode(question), Ok(word("who")));
            Deed::Answer(word("me").encode_to_vec())
        });
        for _ in 0..3 {
            assert_eq!(asked(&server, LONG), Ok(word("me")));
        }
    }

    #[test]
    fn a_large_answer_comes_whole_and_one_without_end_is_given_up() {
        let text = "x".repeat(1 << 20);
        let large = word(&text).encode_to_vec();
        let server = Server::start(move |_, _| Deed::Answer(large.clone()));
        assert_eq!(asked(&server, LONG), Ok(word(&text)));
        let server = Server::start(|_, _| Deed::Raw {
            bytes: vec![0; LARGEST + 1024],
            ends: true,
        });
        let Err(Failure::Broken(why)) = asked(&server, LONG) else {
            panic!("taken");
        };
        assert!(why.starts_with("an answer of more than"), "{why}");
    }

    #[test]
    fn a_refusal_is_told_with_its_code() {
        let server = Server::start(|_, _| Deed::Refuse(12, "unknown service"));
        let refused = Failure::Refused {
            code: 12,
            message: "unknown service".to_owned(),
        };
        assert_eq!(asked(&server, LONG), Err(refused));
    }

    #[test]
    fn what_is_no_message_or_cut_off_is_an_error() {
        let whole = framed(&word("me")).to_vec();
        let mut compressed = whole.clone();
        compressed[0] = 1;
        let mut twice = whole.clone();
        twice.extend(&whole);
        let mut other = whole.clone();
        other[PREFIX] = 0xff;
        let cut = whole[..whole.len() - 1].to_vec();
        for bytes in [compressed, twice, other, cut, Vec::new(), vec![0; 3]] {
            let shown = format!("{bytes:?}");
            let server = Server::start(move |_, _| Deed::Raw {
                bytes: bytes.clone(),
                ends: true,
            });
            let answer = asked(&server, LONG);
            assert!(
                matches!(answer, Err(Failure::Broken(_))),
                "{shown}: {answer:?}"
            );
        }
    }

    #[test]
    fn who_accepts_and_never_answers_is_given_up_in_time() {
        for ends in [true, false] {
            let server = Server::start(move |_, _| {
                if ends {
                    Deed::Silence
                } else {
                    let bytes = vec![0, 0, 0];
                    Deed::Raw { bytes, ends }
                }
            });
            assert_eq!(asked(&server, SHORT), Err(Failure::Late(SHORT)));
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        let silent = UnixListener::bind(&socket).unwrap();
        let answer: Result<Word, _> = unary(&socket, "/x.Y/Z", &word(""), SHORT);
        assert_eq!(answer, Err(Failure::Late(SHORT)));
        drop(silent);
        let answer: Result<Word, _> = unary(&socket, "/x.Y/Z", &word(""), SHORT);
        assert_eq!(answer, Err(Failure::Absent));
    }

    #[test]
    fn who_speaks_another_protocol_is_an_error() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        let other = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let mut stream = other.accept().unwrap().0;
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        });
        let answer: Result<Word, _> = unary(&socket, "/x.Y/Z", &word(""), LONG);
        assert!(matches!(answer, Err(Failure::Broken(_))), "{answer:?}");
    }
}
