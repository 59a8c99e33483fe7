//! What two programs must agree about. The same questions to the local AWS and to moto, a second
//! opinion on the wire format: each answers as AWS does, but for what the table below knows of moto.

#[path = "contract/advice.rs"]
mod advice;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Arguments, Completion, Trial};
use nodemend_tests::cloud::Cloud;

/// The Python of an environment that has moto, as `cargo xtask test cloud` makes it.
const PYTHON: &str = "NODEMEND_MOTO_PYTHON";
const MOTO: &str = "moto_answers_as_aws_does_but_for_what_is_known";
const GROUP: &str = "workers";
const UNKNOWN: &str = "i-0123456789abcdef0";

/// What moto answers instead, by the name of the question. One that is no longer so fails, too.
const MOTO_DIFFERS: [(&str, &str); 5] = [
    ("a_member_tells_its_group", "200 workers Healthy"),
    ("a_reboot_is_accepted", "200 "),
    // An error of its own, without a body.
    ("who_is_in_no_group_is_not_terminated", "500 "),
    ("a_health_that_does_not_exist_is_refused", "500 "),
    // It records none.
    (
        "a_terminate_keeps_the_desired_capacity_and_is_told_as_an_activity",
        "200 3 ",
    ),
];

/// A question, and the beginning of what AWS's answer comes to.
struct Question {
    name: &'static str,
    answer: &'static str,
    ask: fn(&Endpoint) -> anyhow::Result<String>,
}

const QUESTIONS: [Question; 10] = [
    Question {
        name: "a_group_tells_its_members",
        answer: "200 InService,InService,InService",
        ask: |aws| {
            let name = ("AutoScalingGroupNames.member.1", GROUP);
            let answer = aws.auto_scaling("DescribeAutoScalingGroups", &[name])?;
            Ok(answer.with(answer.all("LifecycleState").join(",")))
        },
    },
    Question {
        name: "a_member_tells_its_group",
        answer: "200 workers HEALTHY",
        ask: |aws| {
            let id = ("InstanceIds.member.1", aws.first());
            let answer = aws.auto_scaling("DescribeAutoScalingInstances", &[id])?;
            let group = answer.one("AutoScalingGroupName");
            Ok(answer.with(format!("{group} {}", answer.one("HealthStatus"))))
        },
    },
    Question {
        name: "an_instance_is_found_by_a_filter",
        answer: "200 running",
        ask: |aws| {
            let filter = [
                ("Filter.1.Name", "instance-id"),
                ("Filter.1.Value.1", aws.first()),
            ];
            let answer = aws.ec2("DescribeInstances", &filter)?;
            let (_, state) = answer
                .body
                .split_once("<instanceState>")
                .unwrap_or_default();
            Ok(answer.with(between(state, "name")))
        },
    },
    Question {
        name: "an_instance_that_is_unknown_is_left_out",
        answer: "200 0",
        ask: |aws| {
            let filter = [
                ("Filter.1.Name", "instance-id"),
                ("Filter.1.Value.1", UNKNOWN),
            ];
            let answer = aws.ec2("DescribeInstances", &filter)?;
            Ok(answer.with(answer.all("instanceId").len().to_string()))
        },
    },
    Question {
        name: "a_reboot_is_accepted",
        answer: "200 true",
        ask: |aws| {
            let answer = aws.ec2("RebootInstances", &[("InstanceId.1", aws.first())])?;
            Ok(answer.with(answer.one("return")))
        },
    },
    Question {
        name: "a_dry_run_says_what_would_be",
        answer: "412 DryRunOperation",
        ask: |aws| {
            let dry = [("InstanceId.1", aws.first()), ("DryRun", "true")];
            let answer = aws.ec2("RebootInstances", &dry)?;
            Ok(answer.with(answer.one("Code")))
        },
    },
    Question {
        name: "an_unknown_instance_is_not_rebooted",
        answer: "400 InvalidInstanceID.NotFound",
        ask: |aws| {
            let answer = aws.ec2("RebootInstances", &[("InstanceId.1", UNKNOWN)])?;
            Ok(answer.with(answer.one("Code")))
        },
    },
    Question {
        name: "who_is_in_no_group_is_not_terminated",
        answer: "400 ValidationError",
        ask: |aws| {
            let answer = aws.terminate(UNKNOWN)?;
            Ok(answer.with(answer.one("Code")))
        },
    },
    Question {
        name: "a_health_that_does_not_exist_is_refused",
        answer: "400 ValidationError",
        ask: |aws| {
            let wrong = [("InstanceId", aws.first()), ("HealthStatus", "Sick")];
            let answer = aws.auto_scaling("SetInstanceHealth", &wrong)?;
            Ok(answer.with(answer.one("Code")))
        },
    },
    // The last, because it changes what the others ask about.
    Question {
        name: "a_terminate_keeps_the_desired_capacity_and_is_told_as_an_activity",
        answer: "200 3 Terminating EC2 instance",
        ask: |aws| {
            aws.terminate(aws.first())?;
            let name = ("AutoScalingGroupNames.member.1", GROUP);
            let group = aws.auto_scaling("DescribeAutoScalingGroups", &[name])?;
            let desired = group.one("DesiredCapacity");
            let name = ("AutoScalingGroupName", GROUP);
            let answer = aws.auto_scaling("DescribeScalingActivities", &[name])?;
            Ok(answer.with(format!("{desired} {}", answer.one("Description"))))
        },
    },
];

struct Endpoint {
    address: String,
    instances: Vec<String>,
}

struct Answer {
    status: u16,
    body: String,
}

impl Endpoint {
    fn first(&self) -> &str {
        self.instances.first().map_or("", String::as_str)
    }

    fn auto_scaling(&self, action: &str, fields: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.ask("autoscaling", "2011-01-01", action, fields)
    }

    fn ec2(&self, action: &str, fields: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.ask("ec2", "2016-11-15", action, fields)
    }

    fn terminate(&self, id: &str) -> anyhow::Result<Answer> {
        let keep = ("ShouldDecrementDesiredCapacity", "false");
        let action = "TerminateInstanceInAutoScalingGroup";
        self.auto_scaling(action, &[("InstanceId", id), keep])
    }

    /// As the SDK asks; nobody looks at the signature, but moto reads the service from it.
    fn ask(
        &self,
        service: &str,
        version: &str,
        action: &str,
        fields: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let mut body = format!("Action={action}&Version={version}");
        for (key, value) in fields {
            body += &format!("&{key}={value}");
        }
        let mut stream = TcpStream::connect(&self.address).context("connect")?;
        let timeout = Some(Duration::from_secs(30));
        stream.set_read_timeout(timeout).context("set a timeout")?;
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=local/20260101/us-west-2/{service}/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .with_context(|| format!("ask for {action}"))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("read an answer")?;
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        Ok(Answer {
            status: status.with_context(|| format!("read {text}"))?,
            body: body.to_owned(),
        })
    }
}

impl Answer {
    fn with(&self, told: String) -> String {
        format!("{} {told}", self.status)
    }

    fn one(&self, tag: &str) -> String {
        between(&self.body, tag)
    }

    fn all(&self, tag: &str) -> Vec<String> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let parts = self.body.split(&open).skip(1);
        let inside = parts.map(|part| part.split(&close).next().unwrap_or_default());
        inside.map(|text| text.trim().to_owned()).collect()
    }
}

/// Of the first element of this name.
fn between(xml: &str, tag: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{tag}>")).unwrap_or_default();
    rest.split("</")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// moto, until it is dropped.
struct Moto {
    process: Child,
    endpoint: Endpoint,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _gone = self.process.kill().and_then(|()| self.process.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "this starts another program")]
fn start_moto(python: &OsStr) -> anyhow::Result<Moto> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").context("find a port")?;
    let address = free.local_addr().context("read a port")?.to_string();
    drop(free);
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();
    let process = Command::new(python)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start moto with {}", python.display()))?;
    let endpoint = Endpoint {
        address,
        instances: Vec::new(),
    };
    let mut moto = Moto { process, endpoint };
    for _ in 0..300 {
        if TcpStream::connect(&moto.endpoint.address).is_ok() {
            moto.endpoint.instances = create_group(&moto.endpoint)?;
            return Ok(moto);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("moto did not start")
}

fn create_group(moto: &Endpoint) -> anyhow::Result<Vec<String>> {
    let template = [
        ("LaunchConfigurationName", "template"),
        ("ImageId", "ami-12c6146b"),
        ("InstanceType", "m5.large"),
    ];
    let made = moto.auto_scaling("CreateLaunchConfiguration", &template)?;
    ensure!(made.status == 200, "{}", made.body);
    let group = [
        ("AutoScalingGroupName", GROUP),
        ("LaunchConfigurationName", "template"),
        ("MinSize", "0"),
        ("DesiredCapacity", "3"),
        ("MaxSize", "4"),
        ("AvailabilityZones.member.1", "us-west-2a"),
    ];
    let made = moto.auto_scaling("CreateAutoScalingGroup", &group)?;
    ensure!(made.status == 200, "{}", made.body);
    let name = ("AutoScalingGroupNames.member.1", GROUP);
    let group = moto.auto_scaling("DescribeAutoScalingGroups", &[name])?;
    let ids = group.all("InstanceId");
    ensure!(ids.len() == 3, "{}", group.body);
    Ok(ids)
}

fn all_answered(endpoint: &Endpoint, differs: &BTreeMap<&str, &str>) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for Question { name, answer, ask } in QUESTIONS {
        let known = differs.get(name);
        let expected = known.unwrap_or(&answer);
        let told = ask(endpoint).with_context(|| name.to_owned())?;
        let as_expected = match known {
            Some(known) => told == *known,
            None => told.starts_with(answer),
        };
        if !as_expected {
            wrong.push(format!("{name}: {told}, expected {expected}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn on_the_local_aws() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start tokio")?;
    let cloud = runtime.block_on(Cloud::start())?;
    let instances = cloud.create_group(GROUP, &["us-west-2a", "us-west-2b", "us-west-2a"]);
    let endpoint = Endpoint {
        address: cloud.url().trim_start_matches("http://").to_owned(),
        instances,
    };
    all_answered(&endpoint, &BTreeMap::new())
}

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let advice = [
        (
            "the_shipped_policy_does_what_the_detector_advises",
            advice::is_followed as fn() -> anyhow::Result<()>,
        ),
        (
            "each_rule_of_the_shipped_policy_is_for_another_advice",
            advice::has_no_idle_rule,
        ),
    ];
    let advice = advice.map(|(name, test)| {
        Trial::test(name, move || {
            test().map_err(|error| format!("{error:#}").into())
        })
    });
    let local = Trial::test("the_local_aws_answers_as_aws_does", || {
        on_the_local_aws().map_err(|error| format!("{error:#}").into())
    });
    let moto = match std::env::var_os(PYTHON) {
        Some(python) => Trial::test(MOTO, move || {
            let moto = start_moto(&python).map_err(|error| format!("{error:#}"))?;
            let differs = MOTO_DIFFERS.into_iter().collect();
            all_answered(&moto.endpoint, &differs).map_err(|error| format!("{error:#}").into())
        }),
        None => Trial::ignorable_test(MOTO, || {
            Ok(Completion::ignored_with(format!(
                "no moto: {PYTHON} is not set"
            )))
        }),
    };
    let tests = advice.into_iter().chain([local, moto]).collect();
    libtest_mimic::run(&args, tests).exit_code()
}
