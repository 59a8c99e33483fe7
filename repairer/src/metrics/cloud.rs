//! Counts the calls to AWS where the SDK makes them, so that none is forgotten.

use std::fmt;
use std::sync::Arc;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::FinalizerInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use super::Metrics;

#[derive(Clone)]
pub struct CountCalls(pub Arc<Metrics>);

impl fmt::Debug for CountCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountCalls")
    }
}

impl Intercept for CountCalls {
    fn name(&self) -> &'static str {
        "CountCalls"
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let api = config.load::<Metadata>().map_or("unknown", Metadata::name);
        let result = match context.output_or_error() {
            Some(Ok(_)) => "ok",
            Some(Err(error)) if error.is_operation_error() => "refused",
            Some(Err(_)) | None => "no_answer",
        };
        self.0.cloud_call(api, result);
        Ok(())
    }
}
