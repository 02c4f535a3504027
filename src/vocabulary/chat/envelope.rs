//! The form of OpenAI's chat completions: a question to JSON, an answer to text. Pure.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    ChatError, ChatRequest,
    error::Part,
    http::Answer,
    retry::retry_after,
    secret::{Secret, excerpt},
};

/// The parts of a request that are left out, or sent under another name, because the model does not take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Without {
    /// No `response_format`.
    pub format: bool,
    /// `max_completion_tokens` in place of `max_tokens`.
    pub max_tokens: bool,
    /// No `temperature`.
    pub temperature: bool,
}

impl Without {
    pub(super) fn part(&mut self, part: Part) -> &mut bool {
        match part {
            Part::Format => &mut self.format,
            Part::MaxTokens => &mut self.max_tokens,
            Part::Temperature => &mut self.temperature,
        }
    }
}

/// The request's body.
pub(super) fn body(model: &str, request: &ChatRequest, without: Without) -> Vec<u8> {
    let content = match &request.image {
        // The plain form is the one that every server understands.
        None => json!(request.user),
        Some(jpeg) => json!([
            {"type": "text", "text": request.user},
            {"type": "image_url", "image_url": {"url": format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))}},
        ]),
    };
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    messages.push(json!({"role": "user", "content": content}));
    let mut body = json!({"model": model, "messages": messages});
    body[if without.max_tokens { "max_completion_tokens" } else { "max_tokens" }] = json!(request.max_tokens);
    if let Some(temperature) = request.temperature.filter(|_| !without.temperature) {
        body["temperature"] = json!(temperature);
    }
    if let Some(schema) = request.schema.as_ref().filter(|_| !without.format) {
        let schema = json!({"name": schema.name, "strict": true, "schema": schema.value});
        body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
    }
    body.to_string().into_bytes()
}

/// The reply's text, or what the answer is instead. `max_tokens` is what was asked for.
pub(super) fn reply(answer: &Answer, max_tokens: u32, key: Option<&Secret>) -> Result<String, ChatError> {
    match answer.status {
        200..=299 => {}
        300..=399 => {
            let location = excerpt(answer.location.as_deref().unwrap_or_default(), key);
            return Err(ChatError::Redirect { status: answer.status, location });
        }
        _ => return Err(refusal(answer, key)),
    }
    let text = String::from_utf8_lossy(&answer.body);
    if let Some(content_type) = answer.content_type.as_deref().filter(|found| !is_json(found)) {
        return Err(ChatError::ContentType { content_type: excerpt(content_type, key), excerpt: excerpt(&text, key) });
    }
    let completion = serde_json::from_slice::<Value>(&answer.body).map_err(|error| {
        let reason = match (answer.body.is_empty(), error.is_eof()) {
            (true, _) => "an empty reply".into(),
            (false, true) => format!("JSON that ends too early, after {} bytes", answer.body.len()),
            (false, false) => format!("something else at line {} column {}", error.line(), error.column()),
        };
        ChatError::Json { reason, excerpt: excerpt(&text, key) }
    })?;
    content(&completion, max_tokens, key)
}

fn content(completion: &Value, max_tokens: u32, key: Option<&Secret>) -> Result<String, ChatError> {
    let lacks = |expected, found: &Value| ChatError::Envelope { expected, found: excerpt(&describe(found), key) };
    // Some proxies say 200 and then complain.
    if let Some(error) = completion.get("error").filter(|error| !error.is_null()) {
        let said = message(error).unwrap_or_else(|| describe(error));
        return Err(ChatError::Envelope { expected: "choices", found: excerpt(&format!("an error: {said}"), key) });
    }
    let choices = completion.get("choices").ok_or_else(|| lacks("choices", completion))?;
    let choice = choices.get(0).ok_or_else(|| lacks("at least one choice", choices))?;
    let message = choice.get("message").ok_or_else(|| lacks("choices[0].message", choice))?;
    if let Some(reason) = message.get("refusal").and_then(Value::as_str).filter(|reason| !reason.is_empty()) {
        return Err(ChatError::Refused { reason: excerpt(reason, key) });
    }
    match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => return Err(ChatError::Length { max_tokens }),
        Some("content_filter") => return Err(ChatError::Refused { reason: "a content filter".into() }),
        _ => {}
    }
    let content = message.get("content").ok_or_else(|| lacks("choices[0].message.content", message))?;
    match content.as_str() {
        Some(text) if !text.trim().is_empty() => {
            // An endpoint that has the model echo our headers must not get the key published.
            Ok(key.map_or_else(|| text.to_owned(), |key| key.scrub(text.to_owned())))
        }
        _ => Err(lacks("text in choices[0].message.content", content)),
    }
}

/// The error that an HTTP error is.
fn refusal(answer: &Answer, key: Option<&Secret>) -> ChatError {
    let text = String::from_utf8_lossy(&answer.body);
    let parsed = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    // OpenAI's form; others say `detail` (FastAPI), or put the error's fields on top.
    let error = parsed.get("error").or_else(|| parsed.get("detail")).unwrap_or(&parsed);
    let said = message(error).unwrap_or_else(|| text.clone().into_owned());
    let code = ["code", "type"].into_iter().find_map(|field| error.get(field)?.as_str());
    let blamed = error.get("param").and_then(Value::as_str).unwrap_or_default();
    let rejects = matches!(answer.status, 400 | 422).then(|| rejected(&format!("{blamed} {text}"))).flatten();
    ChatError::Status {
        status: answer.status,
        code: code.map(|code| excerpt(code, key)),
        message: excerpt(&said, key),
        retry_after: answer.retry_after.as_deref().and_then(|value| retry_after(value, SystemTime::now())),
        rejects,
    }
}

/// What a server's complaint is about. A `max_tokens` that is only too large would be so under another name too.
fn rejected(complaint: &str) -> Option<Part> {
    let complaint = complaint.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if says(&["response_format", "json_schema", "structured output"]) {
        Some(Part::Format)
    } else if says(&["max_completion_tokens"]) {
        Some(Part::MaxTokens)
    } else if says(&["temperature"]) && says(&["support", "default"]) {
        Some(Part::Temperature)
    } else {
        None
    }
}

/// The words of an error: a text, or an object with a `message`.
fn message(error: &Value) -> Option<String> {
    error.as_str().or_else(|| error.get("message")?.as_str()).map(str::to_owned)
}

/// `application/json`, or anything that is written in it (`application/problem+json`).
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a truth value".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.trim().is_empty() => "an empty text".into(),
        Value::String(text) => format!("the text {text}"),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) if fields.is_empty() => "an empty object".into(),
        Value::Object(fields) => {
            format!("an object with {}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::*;

    fn request() -> ChatRequest {
        ChatRequest {
            purpose: "test",
            system: "Answer.".into(),
            user: "What?".into(),
            image: None,
            schema: Some(Schema { name: "labels", value: json!({"type": "object"}) }),
            max_tokens: 64,
            temperature: Some(0.2),
        }
    }

    fn sent(request: &ChatRequest, without: Without) -> Value {
        serde_json::from_slice(&body("m", request, without)).unwrap()
    }

    #[test]
    fn a_question_has_openai_s_form() {
        let schema = json!({"name": "labels", "strict": true, "schema": {"type": "object"}});
        let messages = json!([{"role": "system", "content": "Answer."}, {"role": "user", "content": "What?"}]);
        assert_eq!(
            sent(&request(), Without::default()),
            json!({
                "model": "m", "messages": messages, "max_tokens": 64, "temperature": 0.2,
                "response_format": {"type": "json_schema", "json_schema": schema},
            })
        );
        let bare = ChatRequest { system: String::new(), ..request() };
        assert_eq!(
            sent(&bare, Without { format: true, max_tokens: true, temperature: true }),
            json!({"model": "m", "messages": [messages[1]], "max_completion_tokens": 64})
        );
    }

    #[test]
    fn a_picture_is_a_data_url() {
        let request = ChatRequest { image: Some(vec![0xff, 0xd8, 0xff].into()), ..request() };
        let found = sent(&request, Without::default());
        let parts = &found["messages"][1]["content"];
        assert_eq!(parts[0], json!({"type": "text", "text": "What?"}));
        assert_eq!(parts[1]["image_url"]["url"], "data:image/jpeg;base64,/9j/");
    }

    fn answer(status: u16, body: &str) -> Answer {
        let content_type = Some("application/json; charset=utf-8".into());
        Answer { status, content_type, body: body.into(), ..Answer::default() }
    }

    fn read(body: &str) -> Result<String, ChatError> {
        reply(&answer(200, body), 64, None)
    }

    #[test]
    fn a_good_reply_is_its_text() {
        let body = r#"{"id": "x", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "{\"labels\": []}", "refusal": null}}], "usage": {}}"#;
        assert_eq!(read(body).unwrap(), r#"{"labels": []}"#);
    }

    #[test]
    fn bad_replies_say_what_was_found() {
        for (body, kind, found) in [
            ("", "malformed", "an empty reply"),
            (r#"{"choices": [{"mess"#, "malformed", "ends too early, after 19 bytes"),
            ("pong", "malformed", "at line 1 column 1: pong"),
            ("[]", "malformed", "an array of 0"),
            (r#"{"id": 1, "object": 2}"#, "malformed", "an object with id, object"),
            (r#"{"choices": []}"#, "malformed", "an array of 0"),
            (r#"{"choices": [{}]}"#, "malformed", "an empty object"),
            (r#"{"choices": [{"message": {"content": null}}]}"#, "malformed", "found null"),
            (r#"{"choices": [{"message": {"content": " "}}]}"#, "malformed", "an empty text"),
            (r#"{"choices": [{"message": {"content": [1]}}]}"#, "malformed", "an array of 1"),
            (r#"{"error": {"message": "model not loaded"}}"#, "malformed", "an error: model not loaded"),
            (r#"{"choices": [{"message": {"content": "{"}, "finish_reason": "length"}]}"#, "length", "64 tokens"),
            (r#"{"choices": [{"message": {"refusal": "I can't"}}]}"#, "refused", "I can't"),
            (r#"{"choices": [{"message": {}, "finish_reason": "content_filter"}]}"#, "refused", "content filter"),
        ] {
            let error = read(body).unwrap_err();
            assert_eq!(error.kind(), kind, "{body}");
            assert!(error.to_string().contains(found), "{body}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(read(&deep).unwrap_err().kind(), "malformed");
    }

    #[test]
    fn html_is_no_reply() {
        let html = Answer { content_type: Some("text/html".into()), ..answer(200, "<html>\n<h1>Sign in</h1>") };
        let message = reply(&html, 64, None).unwrap_err().to_string();
        assert_eq!(message, "expected application/json, found text/html: <html> <h1>Sign in</h1>");
        for good in ["application/json", "Application/JSON;charset=utf-8", "application/problem+json"] {
            assert!(is_json(good), "{good}");
        }
    }

    #[test]
    fn http_errors_keep_the_endpoint_s_words_but_not_the_key() {
        let key = Secret::new("sk-0123456789").unwrap();
        let body =
            r#"{"error": {"message": "Incorrect API key: sk-0123456789", "type": "t", "code": "invalid_api_key"}}"#;
        let error = reply(&answer(401, body), 64, Some(&key)).unwrap_err();
        assert_eq!(error.to_string(), "the endpoint answered 401 (invalid_api_key): Incorrect API key: [key]");
        for (body, message) in [
            (r#"{"error": "plain"}"#, "plain"),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            (r#"{"message": "top", "type": "kind"}"#, "(kind): top"),
            ("<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>"),
            ("", "nothing"),
        ] {
            let error = reply(&answer(502, body), 64, Some(&key)).unwrap_err().to_string();
            assert!(error.ends_with(message), "{error}");
        }
    }

    #[test]
    fn a_rejected_part_is_recognised() {
        let unsupported = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
            'max_completion_tokens' instead.";
        let own = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is \
            supported.";
        for (status, body, expected) in [
            (400, json!({"error": {"message": "Unknown parameter", "param": "response_format"}}), Some(Part::Format)),
            (422, json!({"detail": [{"loc": ["body", "response_format"], "msg": "extra"}]}), Some(Part::Format)),
            (400, json!({"error": {"message": unsupported, "param": "max_tokens"}}), Some(Part::MaxTokens)),
            (400, json!({"error": {"message": own, "param": "temperature"}}), Some(Part::Temperature)),
            (400, json!({"error": {"message": "max_tokens is too large: 9000", "param": "max_tokens"}}), None),
            (400, json!({"error": {"message": "Unknown model", "param": "model"}}), None),
            (500, json!({"error": {"message": "response_format"}}), None),
        ] {
            match reply(&answer(status, &body.to_string()), 64, None) {
                Err(ChatError::Status { rejects, .. }) => assert_eq!(rejects, expected, "{body}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn redirects_are_named() {
        let moved = Answer { location: Some("https://elsewhere.org/v1".into()), ..answer(307, "") };
        let error = reply(&moved, 64, None).unwrap_err();
        assert_eq!(error.kind(), "redirect");
        assert!(error.to_string().contains("https://elsewhere.org/v1"), "{error}");
    }
}
