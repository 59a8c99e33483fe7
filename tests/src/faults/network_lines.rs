//! The kernel's lines of its network stack, all of them.

use anyhow::Context;

use super::setting::Setting;

/// While it lives, the network stack may log more than its 10 lines in 5 s, which all its kinds of
/// line share (`net_ratelimit` in the kernel): one fault would silence the next.
pub struct AllNetworkLines(#[expect(dead_code, reason = "restores the setting")] Setting);

impl AllNetworkLines {
    pub fn allow() -> anyhow::Result<Self> {
        Setting::sysctl("net/core/message_cost", "0")?
            .context("find the network stack's limit of lines")
            .map(Self)
    }
}
