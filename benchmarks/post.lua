-- For wrk: posts images in turn, and prints what was measured as one line of JSON.
--   wrk … -s post.lua URL -- FIELD IMAGE…      FIELD is the form's field, or - for the raw body
local requests, turn = {}, 0
local boundary = "benchmark-boundary"

local function form(field, image)
  return table.concat({
    "--", boundary, "\r\n",
    'Content-Disposition: form-data; name="', field, '"; filename="image.jpg"\r\n',
    "Content-Type: image/jpeg\r\n\r\n", image, "\r\n--", boundary, "--\r\n",
  })
end

function init(args)
  local field = args[1]
  local raw = field == "-"
  local headers = { ["Content-Type"] = raw and "image/jpeg" or "multipart/form-data; boundary=" .. boundary }
  for i = 2, #args do
    local file = assert(io.open(args[i], "rb"))
    local image = file:read("*all")
    file:close()
    requests[#requests + 1] = wrk.format("POST", nil, headers, raw and image or form(field, image))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %f, "p95": %f, "p99": %f, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
