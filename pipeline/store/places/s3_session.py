"""The HTTP session of the S3 client: aiobotocore's own, with a count of what goes through it."""

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession

from pipeline.store.places.traffic import count_received, count_request, kind_of_request

FIRST = b"attempt=1"
"""How the client marks what is no retry."""


class CountingSession(AIOHTTPSession):
    """Counts every attempt of every request, the client's own retries too."""

    async def send(self, request: Any) -> Any:
        """Send, and count; the length of an answer is what its header promises."""
        attempt = request.headers.get("amz-sdk-request", FIRST).partition(b";")[0]
        count_request(
            kind_of_request(request.method, request.url, request.headers),
            size=int(request.headers.get("Content-Length") or 0),
            again=attempt != FIRST,
        )
        answer = await super().send(request)
        if request.method != "HEAD":
            count_received(int(answer.headers.get("content-length") or 0))
        return answer
