"""Servers of one model folder, each as its users would write it: FastAPI, LitServe, Ray Serve as it comes.

It does not know how they are asked, nor llmray's own server.  `transformers` 5 has no pipeline for questions or
translation any more, so all three call `Plain`: tokenizer, model, decoding, in torch's float32.
"""

import signal
import threading
from typing import Any

import torch
from litserve import LitAPI, LitServer
from transformers import AutoModelForQuestionAnswering, AutoModelForSeq2SeqLM, AutoTokenizer

BATCH, WAIT_S = 16, 0.005
"""Requests that are gathered into a pass, and how long the first one waits; llmray's defaults."""


class Plain:
    """A model and its tokenizer; answers bodies as `InferenceClient` sends them.  For `http` always the same."""

    def __init__(self, task: str, folder: str) -> None:
        if task == "http":
            self.answer: Any = lambda bodies: [[[{"label": "yes", "score": 1.0}]]] * len(bodies)
            return
        kind = AutoModelForQuestionAnswering if task == "qa" else AutoModelForSeq2SeqLM
        self.model, self.tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        self.answer = self.questions if task == "qa" else self.translations

    @torch.inference_mode()
    def questions(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pairs = [body["inputs"] for body in bodies]
        contexts = [pair["context"] for pair in pairs]
        given = self.tokenizer(
            [pair["question"] for pair in pairs], contexts, truncation="only_second", max_length=384, padding=True,
            return_offsets_mapping=True, return_tensors="pt",
        )  # fmt: skip
        offsets = given.pop("offset_mapping")
        out = self.model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
        return [
            self.span(context, *row, [part == 1 for part in given.sequence_ids(place)])
            for place, (context, *row) in enumerate(
                zip(contexts, out.start_logits, out.end_logits, offsets, strict=True)
            )
        ]

    def span(self, context: str, start: Any, end: Any, offsets: Any, inside: list[bool]) -> dict[str, Any]:
        """The likeliest span of at most 30 tokens within the context."""
        outside = ~torch.tensor(inside)
        starts, ends = (logits.masked_fill(outside, float("-inf")).softmax(0) for logits in (start, end))
        scores = torch.outer(starts, ends).triu().tril(29)
        first, last = divmod(int(scores.argmax()), len(inside))
        a, b = int(offsets[first][0]), int(offsets[last][1])
        return {"answer": context[a:b], "score": float(scores.max()), "start": a, "end": b}

    @torch.inference_mode()
    def translations(self, bodies: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
        given = self.tokenizer([body["inputs"] for body in bodies], padding=True, return_tensors="pt")
        tokens = bodies[0]["parameters"]["max_new_tokens"]
        out = self.model.generate(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=tokens, num_beams=1
        )
        return [[{"translation_text": text}] for text in self.tokenizer.batch_decode(out, skip_special_tokens=True)]


def fastapi(task: str, folder: str, port: int) -> None:
    """One request a pass, in FastAPI's thread pool, behind uvicorn."""
    import uvicorn
    from fastapi import FastAPI

    app, model, alone = FastAPI(), Plain(task, folder), threading.Lock()

    def ask(body: dict[str, Any]) -> Any:
        with alone:
            return model.answer([body])[0]

    async def echo(body: dict[str, Any]) -> Any:
        return model.answer([body])[0]

    app.post("/")(echo if task == "http" else ask)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


class Api(LitAPI):
    """At module level, since LitServe pickles it."""

    def __init__(self, task: str, folder: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT_S, api_path="/")
        self.given = task, folder

    def setup(self, device: str) -> None:
        self.plain = Plain(*self.given)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[dict[str, Any]]) -> Any:
        return self.plain.answer(x)

    def unbatch(self, output: Any) -> Any:
        return output


def litserve(task: str, folder: str, port: int) -> None:
    """Batches in a process of its own."""
    server = LitServer(Api(task, folder), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def rayserve(task: str, folder: str, port: int) -> None:
    """One replica with `@serve.batch` behind Ray's own proxy."""
    from ray import serve as ray_serve
    from starlette.requests import Request

    from cluster.session import session
    from llmray.job.training import Scale

    class Model:
        def __init__(self) -> None:
            self.model = Plain(task, folder)

        @ray_serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_S)
        async def answer(self, bodies: list[dict[str, Any]]) -> Any:
            return self.model.answer(bodies)

        async def __call__(self, request: Request) -> Any:
            return await self.answer(await request.json())

    gone = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: gone.set())
    with session(Scale(), nice=False):
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
        threads = torch.get_num_threads()
        options = {"num_cpus": threads, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}}
        deployed = ray_serve.deployment(Model).options(max_ongoing_requests=1000, ray_actor_options=options)
        ray_serve.run(deployed.bind())
        gone.wait()
        ray_serve.shutdown()
