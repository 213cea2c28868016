# Settings that every target of the project shares, and the functions that make the targets.

add_library(longnet_settings INTERFACE)
target_include_directories(longnet_settings INTERFACE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_options(longnet_settings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
if(LONGNET_SANITIZE)
  target_compile_options(longnet_settings INTERFACE "-fsanitize=${LONGNET_SANITIZE}" -fno-omit-frame-pointer)
  target_link_options(longnet_settings INTERFACE "-fsanitize=${LONGNET_SANITIZE}")
endif()

# longnet_library(NAME SOURCES...): a static library. LibTorch's headers cost 20 s a file, so all libraries share one
# precompiled header, which longnet_core makes.
function(longnet_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC longnet_settings)
endfunction()
