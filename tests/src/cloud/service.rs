//! PURE. The services, and how each says no.

use super::query::Params;
use super::state::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Ec2,
    AutoScaling,
    Eks,
    ZonalShift,
}

impl Service {
    /// Both query services are at the same address; the API version tells them apart.
    pub(super) fn of(params: &Params) -> Option<Self> {
        match params.get("Version")?.as_str() {
            "2016-11-15" => Some(Self::Ec2),
            "2011-01-01" => Some(Self::AutoScaling),
            _ => None,
        }
    }

    /// As IAM policies name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::AutoScaling => "autoscaling",
            Self::Eks => "eks",
            Self::ZonalShift => "arc-zonal-shift",
        }
    }

    pub(super) fn throttling(self) -> Refusal {
        let (status, code) = match self {
            Self::Ec2 => (503, "RequestLimitExceeded"),
            Self::AutoScaling => (400, "Throttling"),
            Self::Eks | Self::ZonalShift => (429, "ThrottlingException"),
        };
        let message = match self {
            Self::Ec2 => "Request limit exceeded.",
            Self::AutoScaling | Self::Eks | Self::ZonalShift => "Rate exceeded",
        };
        Refusal {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(super) fn denied(self, action: &str) -> Refusal {
        let service = self.name();
        let (code, before) = match self {
            Self::Ec2 => (
                "UnauthorizedOperation",
                "You are not authorized to perform this operation. ",
            ),
            Self::AutoScaling => ("AccessDenied", ""),
            Self::Eks | Self::ZonalShift => ("AccessDeniedException", ""),
        };
        Refusal {
            status: 403,
            code: code.to_owned(),
            message: format!(
                "{before}User: arn:aws:sts::123456789012:assumed-role/nodemend/local is not authorized to perform: {service}:{action} because no identity-based policy allows the {service}:{action} action"
            ),
        }
    }
}
