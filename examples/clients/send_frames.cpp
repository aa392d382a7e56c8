// Sends frames to a liveptv run from C or C++: needs only libzmq.  [source] listen = "tcp://127.0.0.1:5560"
//     g++ -std=c++17 send_frames.cpp -lzmq -o send_frames && ./send_frames tcp://127.0.0.1:5560 200
#include <zmq.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

static bool send(void* socket, const std::string& header, const void* pixels, size_t bytes) {
    return zmq_send(socket, header.data(), header.size(), ZMQ_SNDMORE) >= 0 && zmq_send(socket, pixels, bytes, 0) >= 0;
}

int main(int count_of_arguments, char** arguments) {
    if (count_of_arguments != 3) return 2;
    const int count = std::atoi(arguments[2]), height = 240, width = 320;
    void* context = zmq_ctx_new();
    void* socket = zmq_socket(context, ZMQ_PUSH);
    if (zmq_connect(socket, arguments[1]) != 0) return 1;
    std::vector<uint16_t> image(height * width);  // little-endian, as on all PCs; else add "encoding":"big"
    for (int number = 0; number < count; ++number) {
        for (int i = 0; i < height * width; ++i)  // here your program has its camera's image
            image[i] = uint16_t(100 + 3000 * std::exp(-(std::pow(i / width - 120, 2) + std::pow(i % width - 60 - number % 200, 2)) / 8));
        const std::string header = R"({"htype":"array-1.0","type":"uint16","shape":[240,320],"frame":)" + std::to_string(number) +
            R"(,"info":{"time_s":)" + std::to_string(number / 25.0) + R"(,"pixel_size_um":0.65}})";
        if (!send(socket, header, image.data(), image.size() * sizeof(uint16_t))) return 1;
        std::this_thread::sleep_for(std::chrono::milliseconds(40));
    }
    send(socket, R"({"htype":"array-1.0","type":"uint8","shape":[0]})", "", 0);  // the run ends with this
    zmq_close(socket);  // what is under way is sent before zmq_ctx_term returns
    zmq_ctx_term(context);
}
