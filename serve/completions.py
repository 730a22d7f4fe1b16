"""One model's answers to OpenAI's requests, in parts that can be sent to another process.

It does not know who asks for them (`front` does, in a process of its own).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse

from llmray.job.errors import LlmrayError, RequestError
from llmray.tasks.base import Answer
from serve import openai
from serve.batcher import Batcher
from serve.shapes import EVENT_STREAM, Identity, Part, openai_failure, sse
from serve.web import refusal


async def respond(task: str, known: Identity, batcher: Batcher, body: bytes) -> AsyncGenerator[Part, None]:
    """Status, headers and identity, then the body, of the answer to what was sent to the route of `task`."""
    response = await _response(task == "chat", known.name, batcher, body)
    yield response.status_code, dict(response.headers), known
    if isinstance(response, StreamingResponse):
        async for part in response.body_iterator:
            yield bytes(part, "utf-8") if isinstance(part, str) else bytes(part)
    else:
        yield bytes(response.body)


async def _response(chat: bool, name: str, batcher: Batcher, body: bytes) -> Response:
    try:
        call = await asyncio.to_thread(openai.read, chat, name, body)
        try:
            if not call.asked.stream:
                return JSONResponse(openai.write(call, await batcher.answer(call.requests)))
            pieces = batcher.stream(call.requests[0])
            return StreamingResponse(_events(call, await anext(pieces), pieces), headers=EVENT_STREAM)
        except RequestError as error:
            raise openai.complaint(error, chat=chat) from None
    except RequestError as error:
        return refusal(error, openai_failure)
    except LlmrayError as error:
        return JSONResponse(openai_failure(str(error), 500), 500)


async def _events(call: openai.Call, piece: str | Answer, rest: AsyncIterator[str | Answer]) -> AsyncIterator[str]:
    yield openai.opening(call)
    try:
        while isinstance(piece, str):
            yield openai.piece(call, piece)
            piece = await anext(rest)
        yield openai.closing(call, piece)
    except LlmrayError as error:
        yield sse(openai_failure(str(error), 500))
