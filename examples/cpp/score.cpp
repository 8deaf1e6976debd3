// Scores images with an exported model and ONNX Runtime's C API: `score gasket.onnx THRESHOLD part.ppm ...`.
// Images are PPM files (P6, 8 bits), as `magick part.png part.ppm` writes them; THRESHOLD stands in gasket.onnx.json.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Image {
  size_t height, width;
  std::vector<uint8_t> pixels;  // RGB, row by row
};

// One axis of a resize as a matrix: the mean over each new pixel's area, or linear interpolation to more pixels.
std::vector<double> averages(size_t before, size_t now) {
  std::vector<double> weights(now * before, 0.0);
  const double ratio = double(before) / double(now);
  for (size_t i = 0; i < now; ++i) {
    const double centre = std::clamp((i + 0.5) * ratio - 0.5, 0.0, double(before - 1));
    for (size_t j = 0; j < before; ++j) {
      const double shared = std::min((i + 1) * ratio, double(j + 1)) - std::max(i * ratio, double(j));
      const double weight = now <= before ? shared / ratio : 1.0 - std::abs(centre - double(j));
      weights[i * before + j] = std::max(weight, 0.0);
    }
  }
  return weights;
}

Image resize(const Image& image, size_t height, size_t width) {
  const auto rows = averages(image.height, height), columns = averages(image.width, width);
  std::vector<double> narrow(image.height * width * 3, 0.0);
  for (size_t y = 0; y < image.height; ++y)
    for (size_t x = 0; x < width; ++x)
      for (size_t old = 0; old < image.width; ++old)
        if (const double weight = columns[x * image.width + old]; weight > 0)
          for (size_t c = 0; c < 3; ++c)
            narrow[(y * width + x) * 3 + c] += weight * image.pixels[(y * image.width + old) * 3 + c];
  Image made{height, width, std::vector<uint8_t>(height * width * 3)};
  for (size_t y = 0; y < height; ++y)
    for (size_t x = 0; x < width * 3; ++x) {
      double sum = 0;
      for (size_t old = 0; old < image.height; ++old) sum += rows[y * image.height + old] * narrow[old * width * 3 + x];
      made.pixels[y * width * 3 + x] = uint8_t(std::nearbyint(sum));
    }
  return made;
}

Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  size_t width = 0, height = 0, largest = 0;
  file >> kind >> width >> height >> largest;
  file.get();
  if (!file || kind != "P6" || largest != 255) throw std::runtime_error(path + ": no PPM file of 8 bits");
  Image image{height, width, std::vector<uint8_t>(height * width * 3)};
  file.read(reinterpret_cast<char*>(image.pixels.data()), std::streamsize(image.pixels.size()));
  if (!file) throw std::runtime_error(path + ": ends too early");
  return image;
}

const OrtApi& api = *OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  throw std::runtime_error(message);
}

// The model from RGB bytes to the score.
class Scorer {
 public:
  explicit Scorer(const char* graph) {
    check(api.CreateEnv(ORT_LOGGING_LEVEL_WARNING, "score", &environment_));
    check(api.CreateSessionOptions(&options_));
    check(api.CreateSession(environment_, graph, options_, &session_));
    check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    OrtTypeInfo* type = nullptr;
    const OrtTensorTypeAndShapeInfo* shape = nullptr;
    check(api.SessionGetInputTypeInfo(session_, 0, &type));
    check(api.CastTypeInfoToTensorInfo(type, &shape));
    check(api.GetDimensions(shape, shape_, 4));
    api.ReleaseTypeInfo(type);
    shape_[0] = 1;
  }
  Scorer(const Scorer&) = delete;
  ~Scorer() {
    api.ReleaseMemoryInfo(memory_);
    api.ReleaseSession(session_);
    api.ReleaseSessionOptions(options_);
    api.ReleaseEnv(environment_);
  }

  float score(const Image& image) {
    Image sized = resize(image, size_t(shape_[1]), size_t(shape_[2]));
    OrtValue *input = nullptr, *output = nullptr;
    check(api.CreateTensorWithDataAsOrtValue(memory_, sized.pixels.data(), sized.pixels.size(), shape_, 4,
                                             ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &input));
    const char *inputs[] = {"pixels"}, *outputs[] = {"score"};
    check(api.Run(session_, nullptr, inputs, &input, 1, outputs, 1, &output));
    float* scores = nullptr;
    check(api.GetTensorMutableData(output, reinterpret_cast<void**>(&scores)));
    const float found = scores[0];
    api.ReleaseValue(output);
    api.ReleaseValue(input);
    return found;
  }

 private:
  OrtEnv* environment_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  int64_t shape_[4] = {};
};

}  // namespace

int main(int count, char** arguments) try {
  if (count < 4) throw std::runtime_error("give a graph, a threshold and PPM files");
  Scorer scorer(arguments[1]);
  const double threshold = std::atof(arguments[2]);
  for (int number = 3; number < count; ++number) {
    const float score = scorer.score(read_ppm(arguments[number]));
    std::printf("%.8g %s %s\n", score, score > threshold ? "ng" : "ok", arguments[number]);
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
