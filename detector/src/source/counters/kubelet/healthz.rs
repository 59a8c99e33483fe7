//! kubelet's own word: `GET /healthz` on loopback.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock;
use crate::text;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Well,
    /// It says what of it is not.
    Unwell(String),
    Refused,
    Silent,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("answers"),
            Self::Unwell(what) => write!(f, "is not well ({what})"),
            Self::Refused => f.write_str("refuses connections"),
            Self::Silent => write!(f, "does not answer within {} s", PATIENCE.as_secs()),
        }
    }
}

pub(super) fn ask(address: SocketAddr) -> Answer {
    match exchange(address, PATIENCE) {
        Ok(bytes) => read(&bytes),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Answer::Refused,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            Answer::Silent
        }
        Err(error) => Answer::Unwell(error.to_string()),
    }
}

/// Whoever sends a byte now and then gets no more time for it.
fn exchange(address: SocketAddr, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = clock::boot() + patience;
    let left = || {
        let left = deadline.saturating_sub(clock::boot());
        (!left.is_zero())
            .then_some(left)
            .ok_or(io::Error::from(ErrorKind::TimedOut))
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < MOST {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            read => answer.extend(&buffer[..read]),
        }
    }
    Ok(answer)
}

fn read(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut words = head.split_ascii_whitespace();
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse::<u16>().ok());
    match status.filter(|_| version.starts_with("HTTP/1.")) {
        Some(200..300) => Answer::Well,
        Some(status) => {
            // `[-]syncloop failed: reason withheld`
            let failed = body.lines().filter_map(|line| line.strip_prefix("[-]"));
            let failed: Vec<&str> = failed.map(str::trim).take(8).collect();
            let said = match failed.as_slice() {
                [] => format!("status {status}"),
                failed => failed.join(", "),
            };
            Answer::Unwell(text::part(said, 128))
        }
        None => Answer::Unwell("no answer in HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_is_good_by_its_status_and_else_says_which_check_failed() {
        let of = |text: &str| read(text.as_bytes());
        assert_eq!(of("HTTP/1.1 200 OK\r\nx: y\r\n\r\nok"), Answer::Well);
        let body = "[+]ping ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n";
        let unwell = of(&format!("HTTP/1.1 500 Internal Server Error\r\n\r\n{body}"));
        let said = "syncloop failed: reason withheld".to_owned();
        assert_eq!(unwell, Answer::Unwell(said));
        assert_eq!(
            of("HTTP/1.1 404 Not Found\r\n\r\n"),
            Answer::Unwell("status 404".to_owned())
        );
        for garbage in [
            "",
            "\u{0}",
            "SSH-2.0-x 200\r\n",
            "HTTP/1.1",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            let none = Answer::Unwell("no answer in HTTP".to_owned());
            assert_eq!(of(garbage), none, "{garbage:?}");
        }
    }

    /// Asked over a real socket of which `serve` has the other end.
    fn asked(serve: impl FnOnce(TcpStream) + Send + 'static) -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        exchange(address, Duration::from_millis(300))
    }

    #[test]
    fn who_accepts_and_never_answers_or_drips_is_given_up_in_time() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let silent = asked(move |_stream| assert!(held.recv().is_err()));
        let kind = silent.unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{kind}"
        );
        drop(hold);
        let dripping = asked(|mut stream| {
            while stream.write_all(b"H").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let kind = dripping.unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{kind}"
        );
    }

    #[test]
    fn who_answers_without_end_is_read_to_a_bound() {
        let endless = asked(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
        assert!(endless.unwrap().len() < MOST + 4096);
    }

    #[test]
    fn where_nobody_listens_it_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask(address), Answer::Refused);
    }
}
