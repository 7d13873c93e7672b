"""How clients are set up for this gateway: what the page Connect shows, as docs/clients.md has it.

The texts have the address, model and token of the documentation; `fill_in` puts others in their place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ollama_proxy.admin.pages.language import N_

#: What stands in the texts for the gateway, for a model, and for a token where no environment variable can.
ADDRESS, MODEL, TOKEN = "http://localhost:8080", "demo", "<token>"

#: The programs of tests/clients with the versions that the tests have run.
TESTED_PROGRAMS = {
    "aider": "0.86.2",
    "autogen": "0.7.5",
    "autogen-ollama": "0.7.5",
    "claude-code": "2.1.330",
    "cline": "3.0.65",
    "codex": "0.169.0",
    "copilot-cli": "1.0.102",
    "dspy": "3.4.1",
    "gptme": "0.35.1",
    "haystack": "3.4.0",
    "haystack-ollama": "7.0.2",
    "instructor": "1.17.0",
    "llamaindex": "0.8.1",
    "llm": "0.36",
    "openai-agents": "0.24.0",
    "opencode": "1.18.33",
    "pydantic-ai": "2.68.0",
    "qwen-code": "0.24.4",
}

#: The clients that tests/sdk and tests/node run, by their names in docs/features.md.
TESTED_LIBRARIES = (
    "anthropic",
    "anthropic (js)",
    "langchain ollama",
    "langchain openai",
    "litellm",
    "ollama",
    "ollama (js)",
    "openai",
    "openai (js)",
    "vercel (js)",
)

_MODEL = re.compile(rf"\b{MODEL}\b")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text to copy."""

    text: str
    #: The file that it belongs into, or what it is.
    title: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and what sets it up."""

    name: str
    snippets: tuple[Snippet, ...]
    note: str = ""
    #: Its keys in TESTED_PROGRAMS, or its names in TESTED_LIBRARIES; none: no test has run it.
    programs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in addresses."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def is_tested(self) -> bool:
        """Whether tests run it."""
        return bool(self.programs or self.libraries)

    @property
    def versions(self) -> str:
        """The versions of programs that tests have run; "" for libraries, which are tested in many."""
        return ", ".join(dict.fromkeys(TESTED_PROGRAMS[name] for name in self.programs))


def fill_in(text: str, address: str, model: str, token: str) -> str:
    """A text of a snippet for this gateway, model and token."""
    # The model first: the address, or the token, may contain its name.
    filled = _MODEL.sub(lambda _: model, text)
    return filled.replace(ADDRESS, address).replace(TOKEN, token)


_COMMAND_LINE = (
    Client(
        "curl",
        (
            Snippet(
                """\
curl -sS http://localhost:8080/v1/chat/completions \\
  -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'
""",
                "OpenAI",
            ),
            Snippet(
                """\
curl -sS http://localhost:8080/v1/messages \\
  -H "x-api-key: $TOKEN" -H 'anthropic-version: 2023-06-01' -H 'Content-Type: application/json' \\
  -d '{"model": "demo", "max_tokens": 200, "messages": [{"role": "user", "content": "Hello"}]}'
""",
                "Anthropic",
            ),
            Snippet(
                """\
curl -sS http://localhost:8080/api/chat \\
  -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": false}'
""",
                "Ollama",
            ),
        ),
    ),
    Client(
        "Ollama",
        (Snippet('export OLLAMA_HOST="http://localhost:8080/k/$TOKEN"\nollama run demo\n'),),
        N_("Ollama's own command line can't send a token, so the token is part of the address."),
    ),
    Client(
        "llm",
        (
            Snippet(
                """\
- model_id: demo
  model_name: demo
  api_base: http://localhost:8080/v1
  api_key_name: gateway
  supports_tools: true
""",
                "~/.config/io.datasette.llm/extra-openai-models.yaml",
            ),
            Snippet('llm keys set gateway --value "$TOKEN"\nllm --model demo "Hello"\n'),
        ),
        programs=("llm",),
    ),
)

_CODING = (
    Client(
        "Codex",
        (
            Snippet(
                """\
model = "demo"
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "http://localhost:8080/v1"
env_key = "TOKEN"
wire_api = "responses"
""",
                "~/.codex/config.toml",
            ),
            Snippet("codex\n"),
        ),
        programs=("codex",),
    ),
    Client(
        "Claude Code",
        (
            Snippet(
                """\
export ANTHROPIC_BASE_URL=http://localhost:8080
export ANTHROPIC_AUTH_TOKEN="$TOKEN"
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
"""
            ),
            Snippet("claude --model demo\n"),
        ),
        N_("Do not set ANTHROPIC_API_KEY as well: two different tokens are refused."),
        programs=("claude-code",),
    ),
    Client(
        "opencode",
        (
            Snippet(
                """\
{
  "provider": {
    "gateway": {
      "npm": "@ai-sdk/openai-compatible",
      "options": {"baseURL": "http://localhost:8080/v1", "apiKey": "{env:TOKEN}"},
      "models": {"demo": {}}
    }
  }
}
""",
                "~/.config/opencode/opencode.json",
            ),
            Snippet("opencode --model gateway/demo\n"),
        ),
        programs=("opencode",),
    ),
    Client(
        "aider",
        (
            Snippet('export OPENAI_API_BASE=http://localhost:8080/v1\nexport OPENAI_API_KEY="$TOKEN"\n'),
            Snippet("aider --model openai/demo\n"),
        ),
        programs=("aider",),
    ),
    Client(
        "Cline",
        (
            Snippet(
                'cline auth openai-compatible --apikey "$TOKEN" --baseurl http://localhost:8080/v1 --modelid demo\n',
                N_("Command line"),
            ),
            Snippet(
                """\
API Provider: OpenAI Compatible
Base URL: http://localhost:8080/v1
API Key: <token>
Model ID: demo
""",
                "VS Code",
            ),
        ),
        N_("The command line is tested; the extension takes the same settings."),
        programs=("cline",),
    ),
    Client(
        "GitHub Copilot CLI",
        (
            Snippet(
                """\
export COPILOT_PROVIDER_BASE_URL=http://localhost:8080/v1
export COPILOT_PROVIDER_API_KEY="$TOKEN"
export COPILOT_MODEL=demo
export COPILOT_OFFLINE=true
"""
            ),
            Snippet("copilot\n"),
        ),
        programs=("copilot-cli",),
    ),
    Client(
        "Qwen Code",
        (
            Snippet(
                """\
export OPENAI_BASE_URL=http://localhost:8080/v1
export OPENAI_API_KEY="$TOKEN"
export OPENAI_MODEL=demo
"""
            ),
            Snippet("qwen --auth-type openai\n"),
        ),
        programs=("qwen-code",),
    ),
    Client(
        "gptme",
        (
            Snippet('export OPENAI_BASE_URL=http://localhost:8080/v1\nexport OPENAI_API_KEY="$TOKEN"\n'),
            Snippet("gptme --model local/demo\n"),
        ),
        programs=("gptme",),
    ),
    Client(
        "Continue",
        (
            Snippet(
                """\
name: gateway
version: 1.0.0
schema: v1
models:
  - name: demo
    provider: openai
    model: demo
    apiBase: http://localhost:8080/v1
    apiKey: <token>
    roles: [chat, edit, apply]
""",
                "~/.continue/config.yaml",
            ),
        ),
    ),
    Client(
        "Zed",
        (
            Snippet(
                """\
{
  "language_models": {
    "openai_compatible": {
      "gateway": {
        "api_url": "http://localhost:8080/v1",
        "available_models": [{"name": "demo", "display_name": "demo", "max_tokens": 32768}]
      }
    }
  }
}
""",
                "settings.json",
            ),
            Snippet('export GATEWAY_API_KEY="$TOKEN"\n'),
        ),
        N_("`max_tokens` is the context length of the model. Zed reads the token from the variable, or asks for it."),
    ),
)

_LIBRARIES = (
    Client(
        "openai · Python",
        (
            Snippet(
                """\
import os

from openai import OpenAI

client = OpenAI(base_url="http://localhost:8080/v1", api_key=os.environ["TOKEN"])
stream = client.chat.completions.create(
    model="demo",
    messages=[{"role": "user", "content": "Hello"}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
"""
            ),
        ),
        libraries=("openai",),
    ),
    Client(
        "openai · JavaScript",
        (
            Snippet(
                """\
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://localhost:8080/v1", apiKey: process.env.TOKEN });
const stream = await client.chat.completions.create({
  model: "demo",
  messages: [{ role: "user", content: "Hello" }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
"""
            ),
        ),
        libraries=("openai (js)",),
    ),
    Client(
        "anthropic · Python",
        (
            Snippet(
                """\
import os

from anthropic import Anthropic

client = Anthropic(base_url="http://localhost:8080", api_key=os.environ["TOKEN"])
with client.messages.stream(
    model="demo",
    max_tokens=200,
    messages=[{"role": "user", "content": "Hello"}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
"""
            ),
        ),
        libraries=("anthropic",),
    ),
    Client(
        "anthropic · JavaScript",
        (
            Snippet(
                """\
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: "http://localhost:8080", apiKey: process.env.TOKEN });
const stream = client.messages.stream({
  model: "demo",
  max_tokens: 200,
  messages: [{ role: "user", content: "Hello" }],
});
stream.on("text", (text) => process.stdout.write(text));
await stream.finalMessage();
"""
            ),
        ),
        libraries=("anthropic (js)",),
    ),
    Client(
        "ollama · Python",
        (
            Snippet(
                """\
import os

from ollama import Client

client = Client(host="http://localhost:8080", headers={"Authorization": f"Bearer {os.environ['TOKEN']}"})
for part in client.chat(model="demo", messages=[{"role": "user", "content": "Hello"}], stream=True):
    print(part.message.content, end="", flush=True)
"""
            ),
        ),
        libraries=("ollama",),
    ),
    Client(
        "ollama · JavaScript",
        (
            Snippet(
                """\
import { Ollama } from "ollama";

const headers = { Authorization: `Bearer ${process.env.TOKEN}` };
const client = new Ollama({ host: "http://localhost:8080", headers });
const messages = [{ role: "user", content: "Hello" }];
for await (const part of await client.chat({ model: "demo", messages, stream: true })) {
  process.stdout.write(part.message.content);
}
"""
            ),
        ),
        libraries=("ollama (js)",),
    ),
    Client(
        "LangChain",
        (
            Snippet(
                """\
import os

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(base_url="http://localhost:8080/v1", api_key=os.environ["TOKEN"], model="demo")
print(chat.invoke([("system", "Be brief."), ("human", "Hello")]).content)
""",
                "langchain-openai",
            ),
            Snippet(
                """\
import os

from langchain_ollama import ChatOllama

headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
chat = ChatOllama(base_url="http://localhost:8080", client_kwargs={"headers": headers}, model="demo")
print(chat.invoke("Hello").content)
""",
                "langchain-ollama",
            ),
        ),
        N_("OpenAIEmbeddings needs check_embedding_ctx_length=False."),
        libraries=("langchain openai", "langchain ollama"),
    ),
    Client(
        "LiteLLM",
        (
            Snippet(
                """\
import os

import litellm

answer = litellm.completion(
    "openai/demo",
    [{"role": "user", "content": "Hello"}],
    api_base="http://localhost:8080/v1",
    api_key=os.environ["TOKEN"],
)
print(answer.choices[0].message.content)
"""
            ),
        ),
        libraries=("litellm",),
    ),
    Client(
        "Vercel AI SDK",
        (
            Snippet(
                """\
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const gateway = createOpenAICompatible({
  name: "gateway",
  baseURL: "http://localhost:8080/v1",
  apiKey: process.env.TOKEN,
});
const { textStream } = streamText({ model: gateway("demo"), prompt: "Hello" });
for await (const text of textStream) {
  process.stdout.write(text);
}
"""
            ),
        ),
        libraries=("vercel (js)",),
    ),
)

_FRAMEWORKS = (
    Client(
        "Pydantic AI",
        (
            Snippet(
                """\
provider = OpenAIProvider(base_url="http://localhost:8080/v1", api_key=os.environ["TOKEN"])
agent = Agent(OpenAIChatModel("demo", provider=provider))
"""
            ),
        ),
        programs=("pydantic-ai",),
    ),
    Client(
        "OpenAI Agents",
        (
            Snippet(
                """\
set_tracing_disabled(True)
client = AsyncOpenAI(base_url="http://localhost:8080/v1", api_key=os.environ["TOKEN"])
"""
            ),
            Snippet('model = OpenAIResponsesModel(model="demo", openai_client=client)\n'),
        ),
        programs=("openai-agents",),
    ),
    Client(
        "LlamaIndex",
        (
            Snippet(
                """\
llm = OpenAILike(
    model="demo",
    api_base="http://localhost:8080/v1",
    api_key=os.environ["TOKEN"],
    is_chat_model=True,
    is_function_calling_model=True,
)
"""
            ),
        ),
        programs=("llamaindex",),
    ),
    Client(
        "DSPy",
        (
            Snippet(
                """\
dspy.configure(lm=dspy.LM("openai/demo", api_base="http://localhost:8080/v1", api_key=os.environ["TOKEN"], cache=False))
"""
            ),
        ),
        programs=("dspy",),
    ),
    Client(
        "Haystack",
        (
            Snippet(
                """\
generator = OpenAIChatGenerator(
    api_base_url="http://localhost:8080/v1", api_key=Secret.from_env_var("TOKEN"), model="demo"
)
""",
                "haystack-ai",
            ),
            Snippet(
                """\
generator = OllamaChatGenerator(url=f"http://localhost:8080/k/{os.environ['TOKEN']}", model="demo")
""",
                "ollama-haystack",
            ),
        ),
        programs=("haystack", "haystack-ollama"),
    ),
    Client(
        "AutoGen",
        (
            Snippet(
                """\
client = OpenAIChatCompletionClient(
    model="demo",
    base_url="http://localhost:8080/v1",
    api_key=os.environ["TOKEN"],
    model_info=ModelInfo(
        vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
    ),
)
""",
                "autogen-ext[openai]",
            ),
            Snippet(
                """\
client = OllamaChatCompletionClient(
    model="demo",
    host=f"http://localhost:8080/k/{os.environ['TOKEN']}",
    model_info=ModelInfo(
        vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
    ),
)
""",
                "autogen-ext[ollama]",
            ),
        ),
        programs=("autogen", "autogen-ollama"),
    ),
    Client(
        "Instructor",
        (
            Snippet(
                """\
client = instructor.from_openai(OpenAI(base_url="http://localhost:8080/v1", api_key=os.environ["TOKEN"]))
"""
            ),
        ),
        programs=("instructor",),
    ),
)

_CHATS = (
    Client(
        "Open WebUI",
        (
            Snippet(
                """\
OPENAI_API_BASE_URL=http://localhost:8080/v1
OPENAI_API_KEY=<token>
ENABLE_FORWARD_USER_INFO_HEADERS=true
""",
                N_("Environment"),
            ),
            Snippet(
                """\
OLLAMA_BASE_URL=http://localhost:8080
OLLAMA_API_CONFIGS={"0": {"enable": true, "key": "<token>"}}
ENABLE_FORWARD_USER_INFO_HEADERS=true
""",
                N_("Environment, with Ollama's API"),
            ),
        ),
        N_("Give it a token of its own. The gateway can share fairly between the people behind it."),
    ),
    Client(
        "LibreChat",
        (
            Snippet(
                """\
endpoints:
  custom:
    - name: gateway
      baseURL: http://localhost:8080/v1
      apiKey: "${GATEWAY_TOKEN}"
      models:
        default: [demo]
        fetch: true
""",
                "librechat.yaml",
            ),
            Snippet("GATEWAY_TOKEN=<token>\n", ".env"),
        ),
    ),
)

#: In the order of the page, with the titles of their groups.
GROUPS: tuple[tuple[str, tuple[Client, ...]], ...] = (
    (N_("Command line"), _COMMAND_LINE),
    (N_("Coding assistants"), _CODING),
    (N_("Chats"), _CHATS),
    (N_("Libraries"), _LIBRARIES),
    (N_("Frameworks"), _FRAMEWORKS),
)
