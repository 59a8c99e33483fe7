//! A process that faults happen to. Takes a deed and a name, waits for a line on standard input,
//! takes the name (as the kernel shows it), and does the deed.

use std::io::{Read, Seek, Write};

use anyhow::{Context, bail};

/// More than any cgroup of the tests allows, less than what hurts a small host.
const MOST_MEMORY: usize = 256 << 20;

fn main() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().collect();
    let [_, deed, name, rest @ ..] = args.as_slice() else {
        bail!("usage: nodemend-fault DEED NAME [PATH]")
    };
    std::io::stdin()
        .read_exact(&mut [0])
        .context("wait for the start")?;
    let name = std::ffi::CString::new(name.as_str()).context("take a name with a NUL")?;
    rustix::thread::set_name(&name).context("take a name")?;
    match (deed.as_str(), rest) {
        ("allocate", []) => allocate(),
        ("crash", []) => crash(),
        ("abort", []) => abort(),
        ("handle", []) => handle(),
        ("fork", []) => fork(),
        ("sync", [path]) => sync(path),
        ("thrash", [path]) => thrash(path),
        ("keep", [cpu]) => keep(cpu, || Ok(())),
        ("keep-in-kernel", [cpu]) => keep_in_kernel(cpu),
        ("write", [path]) => std::fs::write(path, b"x").with_context(|| format!("write {path}")),
        _ => bail!("nodemend-fault cannot `{deed}`"),
    }
}

/// Allocates and touches memory until the OOM killer comes.
fn allocate() -> anyhow::Result<()> {
    let mut memory: Vec<u8> = Vec::with_capacity(MOST_MEMORY);
    while memory.len() < MOST_MEMORY {
        memory.resize(memory.len() + (1 << 20), 1);
    }
    bail!(
        "{} bytes were allocated and nobody minded",
        std::hint::black_box(&memory).len()
    )
}

/// Starts threads until the kernel refuses one, and some more.
fn fork() -> anyhow::Result<()> {
    /// More than any cgroup of the tests allows.
    const MOST_THREADS: usize = 64;
    let mut refused = 0;
    for _ in 0..MOST_THREADS {
        let thread = std::thread::Builder::new()
            .stack_size(1 << 16)
            .spawn(std::thread::park);
        refused += usize::from(thread.is_err());
        if refused == 3 {
            return Ok(());
        }
    }
    bail!("{MOST_THREADS} threads were started and nobody minded")
}

/// Writes to a file or a disk, and waits until it is there.
fn sync(path: &str) -> anyhow::Result<()> {
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let mut file = file.with_context(|| format!("open {path}"))?;
    file.write_all(&[1; 4096])
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {path}"))
}

/// Reads a file again and again until it is killed.
fn thrash(path: &str) -> anyhow::Result<()> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {path}"))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        if file.read(&mut buffer).context("read a file")? == 0 {
            file.rewind().context("read a file again")?;
        }
    }
}

fn keep_in_kernel(cpu: &str) -> anyhow::Result<()> {
    let mut zeros = std::fs::File::open("/dev/zero").context("open /dev/zero")?;
    let mut buffer = vec![0; 1 << 20];
    keep(cpu, || {
        zeros.read_exact(&mut buffer).context("read /dev/zero")
    })
}

/// Stays on a CPU, before all others, until it is killed.
fn keep(cpu: &str, mut meanwhile: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut only = rustix::thread::CpuSet::new();
    only.set(cpu.parse().context("number a CPU")?);
    rustix::thread::sched_setaffinity(None, &only).context("go to a CPU")?;
    let parameters = libc::sched_param { sched_priority: 50 };
    #[expect(unsafe_code, reason = "sched_setscheduler is a C function")]
    // SAFETY: 0 is the calling thread, and `parameters` outlives the call.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    anyhow::ensure!(set == 0, "take a real-time priority: it was refused");
    loop {
        meanwhile()?;
        std::hint::spin_loop();
    }
}

fn no_core_dump() -> anyhow::Result<()> {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).context("forbid core dumps")
}

/// As a failed assertion does: the kernel log says nothing of it.
fn abort() -> anyhow::Result<()> {
    no_core_dump()?;
    std::process::abort()
}

/// Sends itself SIGSEGV, which it handles, as a JVM does all day.
fn handle() -> anyhow::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    #[expect(unsafe_code, reason = "signal and raise are C functions")]
    // SAFETY: the handler does nothing, so it is safe in any state of the process.
    let sent = unsafe {
        libc::signal(libc::SIGSEGV, handler as libc::sighandler_t);
        libc::raise(libc::SIGSEGV)
    };
    anyhow::ensure!(sent == 0, "SIGSEGV could not be sent");
    Ok(())
}

/// Reads where nothing is.
fn crash() -> anyhow::Result<()> {
    no_core_dump()?;
    #[expect(unsafe_code, reason = "the process is meant to crash")]
    // SAFETY: there is none: no page is mapped at this address, so the kernel ends the process.
    let value = unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
    bail!("the read gave {value}")
}
