#include "launch/output/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "launch/output/retrying_file.h"

namespace longnet {
namespace {

/// Lines with the time, in a file that may fail.
class FileSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  FileSink(const std::filesystem::path& file, std::function<void(const std::string&)> say)
      : file_(file, std::move(say)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    file_.write({text.data(), text.size()});
  }
  void flush_() override {}

  RetryingFile file_;
};

}  // namespace

Log::Log(const std::filesystem::path& file) {
  const auto screen = std::make_shared<spdlog::sinks::stdout_color_sink_mt>();
  screen->set_pattern("%v");
  screen->set_level(spdlog::level::info);
  const auto say_on_screen = [screen](const std::string& line) {
    screen->log(spdlog::details::log_msg("longnet", spdlog::level::warn, line));
    screen->flush();
  };
  const auto text = std::make_shared<FileSink>(file, say_on_screen);
  logger_ = std::make_shared<spdlog::logger>("longnet", spdlog::sinks_init_list{screen, text});
  logger_->set_level(spdlog::level::debug);
  logger_->flush_on(spdlog::level::debug);
  logger_->set_error_handler([](const std::string&) {});  // a screen that is gone: nobody is left to be told
}

void Log::record(const std::string& line) const {
  if (logger_) logger_->debug("{}", line);
}

void Log::info(const std::string& line) const {
  if (logger_) logger_->info("{}", line);
}

void Log::warn(const std::string& line) const {
  if (logger_) logger_->warn("{}", line);
}

}  // namespace longnet
