//! The file that says what happens, one statement a line:
//!
//! ```text
//! gpu 0000:05:00.0                 a GPU; then any of `lost`, `ecc=N`, `recovery=N`, `pending=N`,
//!                                  `failed=N`, `replays=N`, `links=MASK`, `link-errors=N`,
//!                                  `clocks=MASK`, `fabric=STATUS`, `mask=N`, `serial=N`,
//!                                  `inforom=0|1` (1: corrupted), `persistence=0|1`, `errors=N`
//!                                  (aggregate, of each location), `sram=0|1` (1: over the
//!                                  threshold), `remapped=N`, `spent=N` (banks without a spare row),
//!                                  `temperature=N`, `lanes=N` (of 16), `mig=N` (instances 5, 6 ...),
//!                                  `pid=N` (a process); what is absent and not of the first three
//!                                  is not supported
//! xid 0000:05:00.0 79              told once, in the order of the lines
//! hang                             no call returns while this line is there, nor does unloading
//! hang-load                        loading does not end while this line is there
//! no-driver                        every call says so
//! ```

use std::fs;

#[derive(Default)]
pub struct Scenario {
    pub gpus: Vec<Gpu>,
    /// Address and number.
    pub xids: Vec<(String, u64)>,
    pub hang: bool,
    pub hang_load: bool,
    pub driver: bool,
}

#[derive(Default)]
pub struct Gpu {
    pub address: String,
    pub lost: bool,
    pub uncorrected: u64,
    pub recovery: u64,
    pub pending: Option<u64>,
    pub failed: Option<u64>,
    pub replays: Option<u64>,
    /// A bit for each that is active, of as many as the highest bit says.
    pub links: Option<u64>,
    pub link_errors: Option<u64>,
    pub clocks: Option<u64>,
    /// How its setup ended.
    pub fabric: Option<u64>,
    pub mask: u64,
    pub serial: Option<u64>,
    pub inforom: Option<u64>,
    pub persistence: Option<u64>,
    pub errors: Option<u64>,
    pub sram: Option<u64>,
    pub remapped: Option<u64>,
    pub spent: Option<u64>,
    pub temperature: Option<u64>,
    pub lanes: Option<u64>,
    pub mig: Option<u64>,
    pub pid: Option<u64>,
}

impl Scenario {
    /// Without a readable file there is no driver.
    pub fn read() -> Self {
        let text = std::env::var_os("NVML_SCENARIO").and_then(|path| fs::read_to_string(path).ok());
        let mut scenario = Self {
            driver: text.is_some(),
            ..Self::default()
        };
        for line in text.iter().flat_map(|text| text.lines()) {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                ["gpu", address, rest @ ..] => scenario.gpus.push(Gpu::parse(address, rest)),
                ["xid", address, number] => {
                    let number = number.parse().unwrap_or_default();
                    scenario.xids.push(((*address).to_owned(), number));
                }
                ["hang"] => scenario.hang = true,
                ["hang-load"] => scenario.hang_load = true,
                // `no-driver`; what is not known must not pass for a healthy GPU either.
                _ => scenario.driver = false,
            }
        }
        scenario
    }
}

impl Gpu {
    fn parse(address: &str, words: &[&str]) -> Self {
        let given = |name: &str| {
            let mut values = words.iter().filter_map(|word| word.strip_prefix(name));
            values.next().and_then(|value| value.parse().ok())
        };
        let number = |name: &str| given(name).unwrap_or_default();
        Self {
            address: address.to_owned(),
            lost: words.contains(&"lost"),
            uncorrected: number("ecc="),
            recovery: number("recovery="),
            pending: given("pending="),
            failed: given("failed="),
            replays: given("replays="),
            links: given("links="),
            link_errors: given("link-errors="),
            clocks: given("clocks="),
            fabric: given("fabric="),
            mask: number("mask="),
            serial: given("serial="),
            inforom: given("inforom="),
            persistence: given("persistence="),
            errors: given("errors="),
            sram: given("sram="),
            remapped: given("remapped="),
            spent: given("spent="),
            temperature: given("temperature="),
            lanes: given("lanes="),
            mig: given("mig="),
            pid: given("pid="),
        }
    }

    /// The same for the same address, whatever else the scenario says.
    pub fn handle(&self) -> usize {
        let digits: String = self
            .address
            .chars()
            .filter(char::is_ascii_hexdigit)
            .collect();
        usize::from_str_radix(&digits, 16).unwrap_or_default() + 1
    }
}
