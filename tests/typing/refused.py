"""What a type checker must refuse: each marked line is a mistake that it has to find."""

from kling_integrations import AsyncKlingClient, KlingClient, Patience, Progress, VideoRequest

client = KlingClient()
request = VideoRequest(prompt="A raccoon")

client.generate("A raccoon")  # refused: a prompt is no request
client.generate(request, timeout="1h")  # refused: seconds are a number
client.save("id", "clip.mp4", clock=None)  # refused: no such option
client.wait(request)  # refused: an id is text
client.submit(request, new="yes")  # refused: new is a bool
client.download(None, "clip.mp4")  # refused: nothing to download
KlingClient(api_key=5)  # refused: a key is text
KlingClient(live_percentiles=True)  # refused: no such option
KlingClient(connections=5)  # refused: of the async client only
Patience(outage="long")  # refused: seconds are a number
VideoRequest("A raccoon")  # refused: arguments have names
path: str = client.download("id", "clip.mp4")  # refused: a Path comes back


def watch(text: str) -> None: ...


client.wait("id", on_update=watch)  # refused: it gets a Progress


async def program(client: AsyncKlingClient, progress: Progress) -> None:
    progress.elapsed = 3.0  # refused: a progress is a value
    generation = client.submit(request)
    print(generation.id)  # refused: it must be awaited
